"""`wfvae convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.output import Overwrite
from wfvae_cli.option import Argument, Option

EXAMPLES = """
    wfvae convert merged.ckpt -o my-vae --config config.json
    wfvae convert Wan2.1_VAE.pth -o wan
    wfvae convert wfvae2-video/ -o wfvae2-image --to-image
    wfvae roundtrip in.mp4 --model my-vae
"""


def convert(
    checkpoint: Annotated[
        Path,
        Argument(
            "CKPT", "A .ckpt, .pth or .bin file of torch.save; or safetensors, a file or a folder."
        ),
    ],
    output: Annotated[
        Path, Option("The folder to write into.", flags=("--output", "-o"), metavar="DIR")
    ],
    console: Console,
    config: Annotated[
        Path | None,
        Option(
            "Its config.json, unless that lies beside CKPT. Wan's VAEs need none.",
            metavar="FILE",
            common=True,
        ),
    ] = None,
    to_image: Annotated[
        bool,
        Option(
            "Derive an image checkpoint from a second-generation WF-VAE for video: what that "
            "computes for a clip of one frame, as a starting point for training on images.",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a checkpoint into safetensors and config.json.

    Takes the moving average of the weights (EMA) where there is one. Nothing in the checkpoint is
    executed: a file that needs code to be loaded is refused.
    """
    from wfvae_cli.models.convert import convert as convert_checkpoint

    done = convert_checkpoint(
        checkpoint, output, config=config, overwrite=overwrite, image=to_image
    )
    console.say(
        f"{done.output}: {done.family}, {done.parameters / 1e6:.1f} M parameters in "
        f"{done.tensors} tensors from {done.source}"
    )
    for note in done.notes:
        console.say(f"  {note}")
    distance = done.still_distance
    if distance is not None:
        console.say(
            f"  on still images: latents differ by {distance.latents:.2g} of their size; from "
            f"equal latents, frames by {distance.frames:.2g} on the scale of [-1, 1] "
            f"({distance.psnr:.1f} dB)"
        )
    console.result(
        {
            "input": str(checkpoint),
            "output": str(done.output),
            "family": done.family,
            "source": done.source,
            "tensors": done.tensors,
            "parameters": done.parameters,
            "notes": list(done.notes),
            "still_distance": None if distance is None else distance.as_dict(),
        }
    )
