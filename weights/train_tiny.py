"""Train `wfvae-tiny`, the checkpoint that comes with the program.

    python weights/train_tiny.py train DATA WORK --init WEIGHTS --steps 6000
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 weights/train_tiny.py train …  # one a core
    python weights/train_tiny.py export DATA WORK --init WEIGHTS --out weights/wfvae-tiny

DATA holds `train/*.mp4` and `train_photos/*.jpg`. WORK receives decoded clips, checkpoints
(safetensors) and `log.jsonl`; the same command resumes where it was stopped. The model is the
package's own. Loss after WF-VAE (arXiv 2411.17459, section 3.3): L1, KL 1e-6 and wavelet loss
0.1, plus a squared error that PSNR measures; no LPIPS, no adversary.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from wfvae_cli.media.clip import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.base import Posterior
from wfvae_cli.models.wfvae import WFVAE
from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.stream import Stream
from wfvae_cli.stats.accumulate import LatentStats

Pixels = NDArray[np.uint8]

HELD_OUT_CLIPS = (
    "ai_ship",
    "anim_sintel_b",
    "cam_blocks_text",
    "cam_butterfly",
    "cam_dash_street",
    "cam_juggle",
    "cam_sign_book",
    "cam_stream_water",
    "film_tos_c",
    "screen_ui_anim",
)
HELD_OUT_PHOTOS = (
    "budgie_canyon-wren",
    "budgie_roman-colosseum",
    "coral_pets",
    "dali_hong-kong-1078949-640",
    "elementary_rob-bye",
    "popos_jared-evans-119758",
)
# Night drives and dash cameras are many among the clips: kinds are drawn first, then files.
KIND_SHARE = {
    "cam": 0.42,
    "driving": 0.08,
    "anim": 0.12,
    "ai": 0.06,
    "film": 0.06,
    "screen": 0.05,
    "photo": 0.21,
}
SHORT_SIDE = 256
CACHED_FRAMES = 150
VALIDATION_FRAMES = 17

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
    "encoder_num_resblocks": 2,
    "decoder_num_resblocks": 2,
    "encoder_energy_flow_hidden_size": 24,
    "decoder_energy_flow_hidden_size": 24,
    "connect_res_layer_num": 1,
    "t_interpolation": "trilinear",
}

KL_WEIGHT = 1e-6
WAVELET_WEIGHT = 0.1
EMA_DECAY = 0.995
WARM_UP = 20
CLIP_NORM = 1.0
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum: it lasts until `end` of all steps."""

    end: float
    batch: int
    frames: int
    size: int


# Not 9 frames of 128x128: with those, oneDNN's bfloat16 backward of PyTorch 2.13 corrupts memory.
STAGES = (Stage(0.65, 4, 9, 96), Stage(0.85, 2, 17, 96), Stage(1.0, 2, 17, 128))


# ---------------------------------------------------------------- data


def decode(path: Path) -> Pixels:
    """A clip's first frames, THWC RGB, scaled to the training size."""
    sampling = Sampling(short_side=SHORT_SIDE, frames=CACHED_FRAMES)
    with open_clip(path, sampling) as clip:
        return np.stack([np.asarray(frame.pixels, np.uint8) for frame in clip])


def kind(name: str) -> str:
    """What a clip counts as when kinds are drawn; the files' prefixes say it."""
    return "driving" if name.startswith(("cam_dash", "cam_night")) else name.split("_")[0]


class Footage:
    """Decoded clips and photographs, memory-mapped from WORK/cache, split into two sets."""

    def __init__(self, data: Path, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self.train: dict[str, dict[str, Pixels]] = {name: {} for name in KIND_SHARE}
        self.held_out: dict[str, Pixels] = {}
        for path in sorted((data / "train").glob("*.mp4")):
            file = cache / f"{path.stem}.npy"
            if not file.exists():
                np.save(file, decode(path))
            clip = np.load(file, mmap_mode="r")
            if path.stem in HELD_OUT_CLIPS:
                self.held_out[path.stem] = clip[:VALIDATION_FRAMES]
            else:
                self.train[kind(path.stem)][path.stem] = clip
        for path in sorted((data / "train_photos").glob("*.jpg")):
            if path.stem not in HELD_OUT_PHOTOS:
                photo = shrink(Image.open(path).convert("RGB"), 384)
                self.train["photo"][path.stem] = np.asarray(photo)

    def batch(self, stage: Stage, rng: np.random.Generator) -> Tensor:
        """Random crops, B3THW in [-1, 1]."""
        kinds = rng.choice(list(KIND_SHARE), size=stage.batch, p=list(KIND_SHARE.values()))
        crops = []
        for name in kinds:
            source = rng.choice(list(self.train[name]))
            cut = pan_and_zoom if name == "photo" else cut_out
            crops.append(cut(self.train[name][source], stage, rng))
        return torch.stack(crops)


def shrink(photo: Image.Image, short_side: int) -> Image.Image:
    """Scale down so that the shorter side has `short_side` pixels, aspect kept."""
    factor = short_side / min(photo.size)
    width, height = (round(side * factor) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def cut_out(clip: Pixels, stage: Stage, rng: np.random.Generator) -> Tensor:
    """A random crop of a clip, 3THW: at times mirrored, backwards or at double speed."""
    frames, height, width, _ = clip.shape
    step = 2 if rng.random() < 0.2 and frames > 2 * stage.frames else 1
    span = (stage.frames - 1) * step + 1
    t = rng.integers(frames - span + 1)
    y = rng.integers(height - stage.size + 1)
    x = rng.integers(width - stage.size + 1)
    crop = clip[t : t + span : step, y : y + stage.size, x : x + stage.size]
    if rng.random() < 0.5:
        crop = crop[:, :, ::-1]
    if rng.random() < 0.3:
        crop = crop[::-1]
    return to_tensor(crop)


def pan_and_zoom(photo: Pixels, stage: Stage, rng: np.random.Generator) -> Tensor:
    """A camera move over a photograph, 3THW; one in five stands still."""
    height, width, _ = photo.shape
    size, times = stage.size, np.arange(stage.frames)
    step = rng.uniform(0.6, 1.0)  # photo pixels a frame pixel
    still = rng.random() < 0.2
    zoom = step * np.exp((0.0 if still else rng.normal(0, 0.006)) * times)
    pan = (0.0 if still else rng.normal(0, 2.0, (2, 1))) * times
    reach = zoom.max() * size / 2 + 1
    centre = np.array([rng.uniform(min(reach, n / 2), max(n - reach, n / 2))
                       for n in (width, height)])[:, None] + pan  # fmt: skip
    axis = np.linspace(-1, 1, size) * (size - 1) / 2
    x = (centre[0][:, None] + zoom[:, None] * axis) / (width - 1) * 2 - 1
    y = (centre[1][:, None] + zoom[:, None] * axis) / (height - 1) * 2 - 1
    grid = torch.empty(stage.frames, size, size, 2)
    grid[..., 0] = torch.from_numpy(x)[:, None, :]
    grid[..., 1] = torch.from_numpy(y)[:, :, None]
    picture = to_tensor(photo[None]).movedim(1, 0).expand(stage.frames, -1, -1, -1)
    crop = F.grid_sample(
        picture, grid, mode="bicubic", padding_mode="reflection", align_corners=True
    )
    return crop.movedim(0, 1).clamp(-1, 1)


def to_tensor(frames: Pixels) -> Tensor:
    """THWC uint8 to 3THW in [-1, 1]."""
    return torch.from_numpy(frames.astype(np.float32)).permute(3, 0, 1, 2) / 127.5 - 1


# ---------------------------------------------------------------- model


def build(config: dict[str, Any]) -> WFVAE:
    """The network, with channels-last weights; added residual blocks start as identities."""
    vae = WFVAE.from_config(config)
    for module in vae.modules():
        if isinstance(module, CausalConv3d):
            module.by_tap = False
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            weight = module.weight
            layout = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
            weight.data = weight.data.contiguous(memory_format=layout)
    return vae


def warm_start(vae: WFVAE, weights: Path) -> None:
    """Copy a smaller relative: blocks it lacks become identities (their last conv zero).

    Blocks are matched within each chain: layers before the added ones keep their numbers, the
    layers after them (resampling, widening) are counted from the chain's end.
    """
    own = vae.state_dict()
    given = {k: v.float() for k, v in load_file(weights).items() if WFVAE.constant(k) is None}
    for chain in sorted({".".join(k.split(".")[:2]) for k in own if k.split(".")[2].isdigit()}):
        length = 1 + max(int(k.split(".")[2]) for k in own if k.startswith(f"{chain}."))
        had = 1 + max(int(k.split(".")[2]) for k in given if k.startswith(f"{chain}."))
        # The last two layers of down*/up* chains, and a connect's conv, stay last.
        kept = 1 if "down" in chain or "connect" in chain else 2
        for name in [k for k in own if k.startswith(f"{chain}.")]:
            layer, rest = int(name.split(".")[2]), name.split(".", 3)[3]
            if layer < had - kept:
                old = layer
            elif layer >= length - kept:
                old = layer - (length - had)
            else:
                if rest.startswith("conv2."):
                    own[name].zero_()
                continue
            own[name] = given.pop(f"{chain}.{old}.{rest}")
    own.update(given)
    # Less noise in the latents than the start was trained with: a seventh of its deviation.
    own["encoder.conv_out.conv.bias"][vae.latent_channels :] -= 4.0
    vae.load_state_dict(own)


class Bands:
    """The wavelet bands of both levels as they pass by in encoder and decoder."""

    def __init__(self, vae: WFVAE) -> None:
        self.seen: dict[str, Tensor] = {}
        for level in ("connect_l1", "connect_l2"):
            vae.encoder.get_submodule(level).register_forward_pre_hook(
                lambda _, args, level=level: self.seen.update({f"encoder.{level}": args[0]})
            )
            # The decoder adds the low band to this very tensor afterwards, as it should be here.
            vae.decoder.get_submodule(level).register_forward_hook(
                lambda _, __, out, level=level: self.seen.update({f"decoder.{level}": out})
            )

    def distance(self) -> Tensor:
        """Mean absolute difference of the decoder's bands from the encoder's, both levels."""
        seen = self.seen
        return sum(
            (seen[f"encoder.{level}"].float() - seen[f"decoder.{level}"].float()).abs().mean()
            for level in ("connect_l1", "connect_l2")
        )  # type: ignore[return-value]  # two summands, never the int 0


def kl(posterior: Posterior) -> Tensor:
    """KL divergence from the standard normal, in nats a latent value."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


# ---------------------------------------------------------------- training


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16: CPUs without instructions for it crawl."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is fast; weights, norms and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_in_bfloat16(device))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(1, steps - WARM_UP)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def losses(
    vae: WFVAE, bands: Bands, frames: Tensor, squared: float, seed: int
) -> dict[str, Tensor]:
    """The loss terms of one batch; `squared` is the share of squared error."""
    with autocast(frames.device):
        posterior = vae.encode(frames, Stream.whole())
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed)).to(
            frames.device
        )
        decoded = vae.decode(posterior.sample(noise), Stream.whole()).float()
    error = decoded - frames
    terms = {"l1": error.abs().mean(), "mse": error.square().mean()}
    terms |= {"kl": kl(posterior), "wl": bands.distance()}
    terms["loss"] = (
        (1 - squared) * terms["l1"]
        + squared * 4 * terms["mse"]
        + KL_WEIGHT * terms["kl"]
        + WAVELET_WEIGHT * terms["wl"]
    )
    return terms


@torch.inference_mode()
def validate(vae: WFVAE, clips: dict[str, Pixels], device: torch.device) -> dict[str, float]:
    """Mean PSNR in dB over the frames of every held-out clip's middle square, 8-bit RGB."""
    scores = {}
    for name, clip in clips.items():
        side = min(clip.shape[1:3])
        y, x = ((n - side) // 2 for n in clip.shape[1:3])
        frames = to_tensor(clip[:, y : y + side, x : x + side])[None].to(device)
        decoded = vae.decode(vae.encode(frames, Stream.whole()).mean, Stream.whole())
        error = (decoded.clamp(-1, 1) * 127.5 + 127.5).round() - (frames * 127.5 + 127.5)
        mse = error.square().mean(dim=(0, 1, 3, 4)).clamp_min(1e-3)
        scores[name] = float((10 * torch.log10(255**2 / mse)).mean())
    return scores


class Muon:
    """Momentum whose updates are orthogonalised: all directions of a conv's weight learn alike.

    A convolution's weight counts as the matrix outputs x (inputs * taps). Every singular value of
    the momentum becomes about 1 by five Newton-Schulz steps (K. Jordan, 2024), scaled so that
    AdamW's learning rates fit (arXiv 2502.16982). It costs a tenth of a step.
    """

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights = weights
        self.momentum = [torch.zeros_like(p) for p in weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update all weights from their gradients."""
        for p, momentum in zip(self.weights, self.momentum, strict=True):
            assert p.grad is not None
            momentum.lerp_(p.grad, 0.05)
            update = orthogonal(torch.lerp(p.grad, momentum, 0.95).flatten(1))
            p.mul_(1 - rate * WEIGHT_DECAY)
            p.sub_(update.view(p.shape), alpha=0.2 * rate * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with singular values near 1 and the same singular vectors."""
    x = matrix.bfloat16() if fast_in_bfloat16(matrix.device) else matrix
    tall = x.size(0) > x.size(1)
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    y: Tensor = x.mT if tall else x
    return y.to(matrix.dtype)


class Run:
    """Weights, their moving average, the optimisers and the step, saved and resumed together."""

    def __init__(self, vae: WFVAE, work: Path, device: torch.device) -> None:
        self.vae, self.file, self.device = vae, work / "state.safetensors", device
        self.step = 0
        self.hours = 0.0
        self.named = dict(vae.named_parameters())
        self.parameters = list(self.named.values())
        self.average = [p.detach().clone() for p in self.parameters]
        self.muon = Muon([p for p in self.parameters if p.ndim > 1])
        self.adam = torch.optim.AdamW(
            [p for p in self.parameters if p.ndim == 1], betas=(0.9, 0.99), weight_decay=0.0
        )
        if self.file.exists():
            self._load()

    def update(self, loss: Tensor, rate: float) -> None:
        """One step of the optimisers and of the average."""
        self.adam.param_groups[0]["lr"] = rate
        self.adam.zero_grad()
        for p in self.parameters:
            p.grad = None
        torch.autograd.backward(loss)
        if dist.is_initialized():
            self._share_gradients()
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.adam.step()
        self.muon.step(rate)
        self.step += 1
        decay = min(EMA_DECAY, self.step / (self.step + 20))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _share_gradients(self) -> None:
        """Give every worker the mean of all workers' gradients."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        means = torch.split(flat, [g.numel() for g in gradients])
        for g, mean in zip(gradients, means, strict=True):
            g.copy_(mean.view_as(g))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        yield
        self._swap()

    def _swap(self) -> None:
        for p, average in zip(self.parameters, self.average, strict=True):
            p.data, average.data = average.data, p.data

    def save(self) -> None:
        """Write everything beside its name and rename it: a kill at any moment is harmless."""
        tensors = {f"weight/{name}": p.detach() for name, p in self.named.items()}
        tensors |= {f"average/{n}": t for n, t in zip(self.named, self.average, strict=True)}
        tensors |= {f"momentum/{i}": t for i, t in enumerate(self.muon.momentum)}
        for i, state in self.adam.state_dict()["state"].items():
            tensors |= {f"first/{i}": state["exp_avg"], f"second/{i}": state["exp_avg_sq"]}
        notes = {"step": str(self.step), "hours": str(self.hours)}
        part = self.file.with_suffix(".part")
        save_file({k: t.contiguous() for k, t in tensors.items()}, part, notes)
        part.replace(self.file)

    def _load(self) -> None:
        with safe_open(self.file, "pt") as stored:
            notes = stored.metadata()
        self.step, self.hours = int(notes["step"]), float(notes["hours"])
        tensors = load_file(self.file, str(self.device))
        for (name, p), average in zip(self.named.items(), self.average, strict=True):
            p.data.copy_(tensors[f"weight/{name}"])
            average.copy_(tensors[f"average/{name}"])
        for i, momentum in enumerate(self.muon.momentum):
            momentum.copy_(tensors[f"momentum/{i}"])
        for i, p in enumerate(self.adam.param_groups[0]["params"]):
            self.adam.state[p] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors[f"first/{i}"],
                "exp_avg_sq": tensors[f"second/{i}"],
            }


class Monitor:
    """Saves the run and measures the held-out clips, every few minutes and at the end."""

    def __init__(self, run: Run, footage: Footage, args: argparse.Namespace) -> None:
        self.run, self.clips, self.args = run, footage.held_out, args
        self.log = (args.work / "log.jsonl").open("a", buffering=1)
        self.hours, self.began = run.hours, time.monotonic()
        self.saved = self.checked = self.began
        self.terms: list[list[float]] = []

    def after_step(self, terms: dict[str, Tensor], stage: Stage) -> None:
        """Note the losses; save and validate where it is time."""
        run, now = self.run, time.monotonic()
        run.hours = self.hours + (now - self.began) / 3600
        self.terms.append([float(term.detach()) for term in terms.values()])
        done = run.step == self.args.steps
        if done or now - self.saved > 60:
            run.save()
            self.saved = now
        if not done and now - self.checked < 60 * self.args.every:
            return
        with run.averaged():
            scores = validate(run.vae, self.clips, run.device)
        means = np.mean(self.terms, axis=0).round(5).tolist()
        record: dict[str, Any] = {"step": run.step, "hours": round(run.hours, 4)}
        record |= {"frames": stage.frames, "size": stage.size}
        record |= dict(zip(terms, means, strict=True))
        record["psnr"] = round(float(np.mean(list(scores.values()))), 3)
        record["clips"] = {name: round(score, 2) for name, score in scores.items()}
        self.log.write(json.dumps(record) + "\n")
        self.terms, self.checked = [], time.monotonic()


def join_workers() -> tuple[int, int]:
    """This process's rank and the number of processes: (0, 1) outside `torchrun`."""
    if "RANK" not in os.environ:
        return 0, 1
    dist.init_process_group("gloo", timeout=timedelta(hours=6))
    return dist.get_rank(), dist.get_world_size()


def train(args: argparse.Namespace) -> None:
    """Train until `args.steps`, from the last saved state if there is one."""
    rank, workers = join_workers()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    config = CONFIG | json.loads(args.config)
    args.work.mkdir(parents=True, exist_ok=True)
    vae = build(config)
    if args.init:
        warm_start(vae, args.init)
    vae.to(device)
    bands, run = Bands(vae), Run(vae, args.work, device)
    footage = Footage(args.data, args.cache or args.work / "cache")
    monitor = Monitor(run, footage, args) if rank == 0 else None
    (args.work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    while run.step < args.steps:
        fraction = run.step / args.steps
        stage = next(stage for stage in STAGES if fraction < stage.end)
        draw = run.step * workers + rank
        frames = footage.batch(stage, np.random.default_rng((args.seed, draw))).to(device)
        terms = losses(vae, bands, frames, args.squared, draw)
        run.update(terms["loss"], learning_rate(run.step, args.steps, args.rate))
        if monitor:
            monitor.after_step(terms, stage)


def measure_scale(vae: WFVAE, footage: Footage) -> tuple[list[float], list[float]]:
    """Shift and scale of every latent channel over the first 49 frames of the training clips."""
    stats = LatentStats()
    for kind, clips in footage.train.items():
        for name, clip in clips.items() if kind != "photo" else ():
            whole = clip[: (len(clip) - 1) // vae.strides.time * vae.strides.time + 1][:49]
            height, width = (side // 8 * 8 for side in whole.shape[1:3])
            frames = to_tensor(whole[:, :height, :width])[None]
            with torch.inference_mode():
                mean = vae.encode(frames, Stream.whole()).mean
            stats.add_clip(name, [(mean[0].numpy(), None)])
    std = np.sqrt(stats.moments.square / stats.moments.count)
    return stats.moments.mean.tolist(), (1 / std).tolist()


def export(args: argparse.Namespace) -> None:
    """Write the averaged weights as a checkpoint of the published form, with its config."""
    config = json.loads((args.work / "config.json").read_text())
    vae, dtype = build(config), getattr(torch, args.dtype)
    state = load_file(args.work / "state.safetensors")
    weights = {k.removeprefix("average/"): v for k, v in state.items() if k.startswith("average/")}
    vae.load_state_dict({k: v.to(dtype).float() for k, v in weights.items()})
    footage = Footage(args.data, args.cache or args.work / "cache")
    scores = validate(vae, footage.held_out, torch.device("cpu"))
    scores["mean"] = float(np.mean(list(scores.values())))
    (args.work / f"psnr-{args.dtype}.json").write_text(json.dumps(scores, indent=2) + "\n")
    shift, scale = measure_scale(vae, footage)
    config |= {"scale": [round(s, 4) for s in scale], "shift": [round(s, 4) for s in shift]}
    tensors = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    # The publishers' own code expects its constant filters in the file.
    tensors |= {k: v for k, v in load_file(args.init).items() if WFVAE.constant(k) is not None}
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Parse the command line and run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train", help="train, or go on where it was stopped")
    exporter = commands.add_parser("export", help="write the averaged weights as a checkpoint")
    for command in (trainer, exporter):
        command.add_argument("data", type=Path)
        command.add_argument("work", type=Path)
        command.add_argument("--cache", type=Path, help="decoded clips; default WORK/cache")
        command.add_argument("--init", type=Path, help="safetensors weights to start from")
    trainer.add_argument("--config", default="{}", help="JSON: fields of config.json to change")
    trainer.add_argument("--steps", type=int, default=1200)
    trainer.add_argument("--rate", type=float, default=4e-4, help="peak learning rate")
    trainer.add_argument("--squared", type=float, default=0.5, help="share of squared error")
    trainer.add_argument("--every", type=float, default=8.0, help="minutes between validations")
    trainer.add_argument("--seed", type=int, default=4)
    exporter.add_argument("--out", type=Path, required=True, help="directory to write to")
    exporter.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    args = parser.parse_args()
    export(args) if args.command == "export" else train(args)


if __name__ == "__main__":
    main()
