"""Train `wfvae-tiny`, the checkpoint that comes with the program.

    python weights/train_tiny.py code DATA CACHE --out CODE            # minutes
    python weights/train_tiny.py train DATA ENCODER --init START --code CODE
    python weights/train_tiny.py train DATA WORK --init ENCODER --knows START
    python weights/train_tiny.py export DATA WORK --constants START --divisor 8 --out OUT
    wfvae stats DATA/train --short-side 256 --frames 49 --model OUT --write-config OUT --overwrite

First a linear code of the latents' size is fitted; then the encoder learns to feed that code's
decoder; then the network's own decoder, which knew the START's latents, learns the new ones, and at
last both go on together. The loss is that of WF-VAE (arXiv 2411.17459, section 3.3), L1, KL and
wavelet loss, and what `losses.py` adds: the squared error as a share of what the clip loses by and
large, which is what a mean of PSNRs measures; errors where things pass by and where colours change,
which small networks leave out (`readings.py`); fine errors in smooth places, which an eye finds
(`fine.py`). No LPIPS, no adversary.

DATA holds `train/*.mp4` and `train_photos/*.jpg`. A work folder receives decoded clips,
checkpoints (safetensors) and `log.jsonl`; the same command resumes where it was stopped. On a CPU,
`OMP_NUM_THREADS=1 torchrun --nproc-per-node 2` in place of `python` uses a process a core; on a
GPU, `--batch 16 --frames 17 --size 160` uses more of it. Last come long crops in turn with wide
ones, `--frames 17 41 --size 160 72`: frames further from a clip's first than in training lose more.
The model is the package's own.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from footage import Crops, Footage, Pixels, Shape, to_tensor
from linear_code import LinearCode, components, fit
from losses import ClipErrors, Losses, encoder_losses
from optimise import STATE, Run
from readings import Readings
from starts import build, decode_the_new, encode_the_code, read_weights, warm_start
from wfvae_cli.models.wfvae import WFVAE
from wfvae_cli.nn.stream import Stream

CONFIG: dict[str, Any] = {
    "_class_name": "WFVAEModel",
    "attention_type": "AttnBlock3DFix",
    "norm_type": "layernorm",
    "use_attention": True,
    "dropout": 0.0,
    "l1_dowmsample_block": "Downsample",
    "l1_downsample_wavelet": "HaarWaveletTransform2D",
    "l2_dowmsample_block": "Spatial2xTime2x3DDownsample",
    "l2_downsample_wavelet": "HaarWaveletTransform3D",
    "l1_upsample_block": "Upsample",
    "l1_upsample_wavelet": "InverseHaarWaveletTransform2D",
    "l2_upsample_block": "Spatial2xTime2x3DUpsample",
    "l2_upsample_wavelet": "InverseHaarWaveletTransform3D",
    "latent_dim": 16,
    "base_channels": 24,
    "encoder_num_resblocks": 4,
    "decoder_num_resblocks": 2,
    "encoder_energy_flow_hidden_size": 24,
    "decoder_energy_flow_hidden_size": 24,
    "connect_res_layer_num": 1,
    "t_interpolation": "trilinear",
}

WARM_UP = 50


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then constant; over the last fifth of the steps it falls linearly to 0."""
    return peak * min(1.0, (step + 1) / WARM_UP, (steps - step) / (0.2 * steps))


@torch.inference_mode()
def validate(
    reconstruct: Callable[[Tensor], Tensor], clips: dict[str, Pixels], device: torch.device
) -> dict[str, float]:
    """Mean PSNR in dB over the frames of every held-out clip's middle square, 8-bit RGB."""
    scores = {}
    for name, clip in clips.items():
        side = min(clip.shape[1:3])
        y, x = ((n - side) // 2 for n in clip.shape[1:3])
        frames = to_tensor(clip[:, y : y + side, x : x + side])[None].to(device)
        levels = (reconstruct(frames).clamp(-1, 1) * 127.5 + 127.5).round()
        error = levels - (frames * 127.5 + 127.5)
        mse = error.square().mean(dim=(0, 1, 3, 4)).clamp_min(1e-3)
        scores[name] = float((10 * torch.log10(255**2 / mse)).mean())
    return scores


def roundtrip(vae: WFVAE) -> Callable[[Tensor], Tensor]:
    """B3THW through the latents' means and back."""
    return lambda frames: vae.decode(vae.encode(frames, Stream.whole()).mean, Stream.whole())


class Monitor:
    """Saves the run and measures the held-out clips, every few minutes and at the end."""

    def __init__(
        self,
        run: Run,
        reconstruct: Callable[[Tensor], Tensor],
        footage: Footage,
        args: argparse.Namespace,
    ) -> None:
        self.run, self.reconstruct, self.args = run, reconstruct, args
        self.clips = footage.held_out
        self.log = (args.work / "log.jsonl").open("a", buffering=1)
        self.hours, self.began = run.hours, time.monotonic()
        self.saved = self.checked = self.began
        self.terms: list[list[float]] = []

    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Note the losses; save and validate where it is time."""
        run, now = self.run, time.monotonic()
        run.hours = self.hours + (now - self.began) / 3600
        self.terms.append([float(term.detach()) for term in terms.values()])
        done = run.step == self.args.steps
        if done or now - self.saved > 60:
            run.save()
            self.saved = now
        if done or now - self.checked > 60 * self.args.every:
            means = np.mean(self.terms, axis=0).round(5).tolist()
            size = {"frames": self.args.frames, "size": self.args.size}
            self.check(size | dict(zip(terms, means, strict=True)))
            self.terms, self.checked = [], time.monotonic()

    def check(self, notes: dict[str, Any]) -> None:
        """Measure the averaged weights; log it with `notes`."""
        with self.run.averaged():
            scores = validate(self.reconstruct, self.clips, self.run.device)
        record: dict[str, Any] = {"step": self.run.step, "hours": round(self.run.hours, 4)} | notes
        record["psnr"] = round(float(np.mean(list(scores.values()))), 3)
        record["clips"] = {name: round(score, 2) for name, score in scores.items()}
        self.log.write(json.dumps(record) + "\n")


def train(args: argparse.Namespace) -> None:
    """Train until `args.steps`, from the last saved state if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    config = CONFIG | json.loads(args.config)
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    footage = Footage(args.data, args.cache or args.work / "cache")
    vae = build(config)
    warm_start(vae, read_weights(args.init))
    nets = nn.ModuleDict({"encoder": vae.encoder, "decoder": vae.decoder})
    if args.code:
        nets["code"] = code = read_code(args.code, vae.latent_channels)
    else:
        nets["readings"] = readings = Readings(vae)
    if not (args.work / STATE).exists():  # which has been through this, and further
        if args.code:
            encode_the_code(vae, code, examples(footage, args.seed))
        elif args.knows:
            known = build(config)
            warm_start(known, read_weights(args.knows))
            decode_the_new(vae, known, examples(footage, args.seed))
    nets.to(device)
    run = Run(nets, args.work, device)

    def reconstruct(frames: Tensor) -> Tensor:
        decode = code.decode if args.code else lambda z: vae.decode(z, Stream.whole())
        return decode(vae.encode(frames, Stream.whole()).mean)

    losses = None if args.code else Losses(vae, ClipErrors(run.clip_errors), readings)

    def step_losses(crops: Crops, seed: int, frozen: bool) -> dict[str, Tensor]:
        if losses is None:
            return encoder_losses(vae, code, crops.frames)
        return losses(crops, seed, frozen)

    shapes = [Shape(args.batch, *each) for each in zip(args.frames, args.size, strict=True)]
    monitor = Monitor(run, reconstruct, footage, args) if run.rank == 0 else None
    if monitor and not run.step:
        monitor.check({})
    while run.step < args.steps:
        draw = run.step * run.workers + run.rank
        shape = shapes[run.step % len(shapes)]
        crops = footage.batch(shape, np.random.default_rng((args.seed, draw))).to(device)
        terms = step_losses(crops, draw, frozen=run.step < args.frozen * args.steps)
        run.update(terms["loss"], learning_rate(run.step, args.steps, args.rate))
        if monitor:
            monitor.after_step(terms)


def examples(footage: Footage, seed: int) -> Iterator[Tensor]:
    """A few batches to solve single layers with."""
    shape = Shape(batch=4, frames=13, size=96)
    for draw in range(24):
        yield footage.batch(shape, np.random.default_rng((seed, draw, 3))).frames


def read_code(path: Path, channels: int) -> LinearCode:
    """A fitted linear code."""
    code = LinearCode(channels)
    code.load_state_dict(load_file(path))
    return code


def fit_code(args: argparse.Namespace) -> None:
    """Fit a linear code, or go on with the one in `args.out`."""
    footage = Footage(args.data, args.cache)
    torch.manual_seed(args.seed)
    if args.out.exists():
        code = read_code(args.out, CONFIG["latent_dim"])
    else:
        code = LinearCode(CONFIG["latent_dim"])
        code.start_from_components(*components(footage, CONFIG["latent_dim"], args.seed))
    recent: list[float] = []

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        if len(recent) == 200 or step == args.steps - 1:
            scores = validate(code, footage.held_out, torch.device("cpu"))
            psnr = float(np.mean(list(scores.values())))
            print(f"step {step + 1}: log error {np.mean(recent):.3f}, held out {psnr:.2f} dB")
            recent.clear()

    fit(code, footage, args.steps, args.rate, args.seed, report)
    save_file(code.state_dict(), args.out)


def divide_latents(weights: dict[str, Tensor], channels: int, factor: float) -> None:
    """Make latents smaller by a `factor` that the decoder makes good: a power of 2 rounds nothing.

    Chunks equal whole clips to an absolute error, which large values exceed by rounding alone.
    """
    for name in ("encoder.conv_out.conv.weight", "encoder.conv_out.conv.bias"):
        weights[name][:channels] /= factor
    weights["encoder.conv_out.conv.bias"][channels:] -= 2 * math.log(factor)  # log-variance
    weights["decoder.conv_in.conv.weight"] *= factor


def export(args: argparse.Namespace) -> None:
    """Write the averaged weights as a checkpoint of the published form, with its config."""
    config = json.loads((args.work / "config.json").read_text())
    vae, dtype = build(config), getattr(torch, args.dtype)
    weights = read_weights(args.work)
    vae.load_state_dict({k: v.to(dtype).float() for k, v in weights.items()})
    footage = Footage(args.data, args.cache or args.work / "cache")
    scores = validate(roundtrip(vae), footage.held_out, torch.device("cpu"))
    scores["mean"] = float(np.mean(list(scores.values())))
    (args.work / f"psnr-{args.dtype}.json").write_text(json.dumps(scores, indent=2) + "\n")
    divide_latents(weights, vae.latent_channels, args.divisor)
    tensors = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    # The publishers' own code expects its constant filters in the file.
    given = load_file(args.constants)
    tensors |= {k: v for k, v in given.items() if WFVAE.constant(k) is not None}
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Parse the command line and run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)

    coder = commands.add_parser("code", help="fit a linear code, or go on with it")
    coder.add_argument("data", type=Path)
    coder.add_argument("cache", type=Path, help="folder for decoded clips")
    coder.add_argument("--out", type=Path, required=True, help="safetensors file")
    coder.add_argument("--steps", type=int, default=600)
    coder.add_argument("--rate", type=float, default=1.5e-4, help="peak learning rate")
    coder.add_argument("--seed", type=int, default=4)
    coder.set_defaults(run=fit_code)

    at_work = argparse.ArgumentParser(add_help=False)
    at_work.add_argument("data", type=Path)
    at_work.add_argument("work", type=Path)
    at_work.add_argument("--cache", type=Path, help="decoded clips; default WORK/cache")

    trainer = commands.add_parser(
        "train", parents=[at_work], help="train, or go on where it was stopped"
    )
    trainer.add_argument("--init", type=Path, required=True, help="weights, or a work folder")
    trainer.add_argument("--code", type=Path, help="train the encoder beneath this linear code")
    trainer.add_argument("--knows", type=Path, help="weights whose latents the decoder can read")
    trainer.add_argument("--frozen", type=float, default=0.0, help="share of steps without encoder")
    trainer.add_argument("--config", default="{}", help="JSON: fields of config.json to change")
    trainer.add_argument("--batch", type=int, default=2, help="crops of each process")
    # Not 9 frames of 128x128: oneDNN's bfloat16 backward of PyTorch 2.13 corrupts memory there.
    frames, sizes = "of a crop, 1 + 4k; of several kinds, which take turns", "their pixels, 8k"
    trainer.add_argument("--frames", type=int, nargs="+", default=[13], help=frames)
    trainer.add_argument("--size", type=int, nargs="+", default=[96], help=sizes)
    trainer.add_argument("--steps", type=int, default=1200)
    trainer.add_argument("--rate", type=float, default=5e-4, help="peak learning rate")
    trainer.add_argument("--every", type=float, default=8.0, help="minutes between validations")
    trainer.add_argument("--seed", type=int, default=4)
    trainer.set_defaults(run=train)

    exporter = commands.add_parser(
        "export", parents=[at_work], help="write the averaged weights as a checkpoint"
    )
    exporter.add_argument("--constants", type=Path, required=True, help="a checkpoint with filters")
    exporter.add_argument("--divisor", type=float, default=1.0, help="of the latents; a power of 2")
    exporter.add_argument("--out", type=Path, required=True, help="directory to write to")
    exporter.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    exporter.set_defaults(run=export)

    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
