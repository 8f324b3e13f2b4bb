"""What `--model` may say: an embedded or published name, a path, or a repository on the Hub."""

from __future__ import annotations

import contextlib
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.errors import WeightsError
from wfvae_cli.strides import Strides

PICKLE_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".pkl")
"""How checkpoints that only `wfvae convert` reads are named."""
_FILE_SUFFIXES = (".safetensors", ".json", *PICKLE_SUFFIXES)
_REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<subfolder>.+))?")


@dataclass(frozen=True)
class HubSource:
    """A folder of a model repository on the Hugging Face Hub."""

    repo: str
    subfolder: str = ""
    revision: str | None = None
    """Branch, tag or commit; None for the default branch."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{'/' if self.subfolder else ''}{self.subfolder}{revision}"


@dataclass(frozen=True)
class PublishedModel:
    """A checkpoint that has a name here."""

    name: str
    source: HubSource | None
    """None for a model that comes with this package."""
    pickle: str | None
    """The file in `source` that has to go through `wfvae convert`; None if it is safetensors."""
    family: str
    licence: str
    strides: Strides
    channels: int
    parameters: int
    """Weights without the Haar filters, which are constants."""


# Where each entry is from:
# - wf-vae-l-16chn: README of PKU-YuanGroup/WF-VAE (16 channels, 316 M, Apache-2.0), which links
#   the repository; it holds config.json and diffusion_pytorch_model.safetensors at its root.
# - open-sora-plan-v1.3: README of PKU-YuanGroup/Open-Sora-Plan links `tree/main/vae`, and issue
#   556 there says that it is the 8-channel 4x8x8 model; examples/opensora_pku/README.md of
#   mindspore-lab/mindone converts its `vae/merged.ckpt` with `vae/config.json`.
# - wan-2.1: diffusers' page on AutoencoderKLWan loads this repository's folder `vae`; it is the one
#   VAE of all Wan 2.1 models, of Wan 2.2's of 14 B and of SkyReels-V2; Apache-2.0 says a third
#   party's copy of it, its own card was not at hand.
# - sd-vae-ft-mse, sd-vae-ft-ema, sdxl-vae: their cards (MIT), config.json at the root.
# Open-Sora Plan v1.5's 8x8x8 VAE is not here: its README links LanguageBind/Open-Sora-Plan-v1.5.0
# without saying which of its files is the VAE. It loads by path once converted.
PUBLISHED: tuple[PublishedModel, ...] = (
    PublishedModel(
        name="wfvae-tiny",
        source=None,
        pickle=None,
        family="wfvae",
        licence="Apache-2.0",
        strides=Strides(4, 8, 8),
        channels=16,
        parameters=5_297_204,
    ),
    PublishedModel(
        name="wf-vae-l-16chn",
        source=HubSource("chestnutlzj/WF-VAE-L-16Chn"),
        pickle=None,
        family="wfvae",
        licence="Apache-2.0",
        strides=Strides(4, 8, 8),
        channels=16,
        parameters=317_081_244,
    ),
    PublishedModel(
        name="open-sora-plan-v1.3",
        source=HubSource("LanguageBind/Open-Sora-Plan-v1.3.0", "vae"),
        pickle="merged.ckpt",
        family="wfvae",
        licence="MIT",
        strides=Strides(4, 8, 8),
        channels=8,
        parameters=145_576_652,
    ),
    PublishedModel(
        name="wan-2.1",
        source=HubSource("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "vae"),
        pickle=None,
        family="wan",
        licence="Apache-2.0",
        strides=Strides(4, 8, 8),
        channels=16,
        parameters=126_892_531,
    ),
    *(
        PublishedModel(
            name=name,
            source=HubSource(f"stabilityai/{name}"),
            pickle=None,
            family="kl",
            licence="MIT",
            strides=Strides(1, 8, 8),
            channels=4,
            parameters=83_653_863,
        )
        for name in ("sd-vae-ft-mse", "sd-vae-ft-ema", "sdxl-vae")
    ),
)


def find_source(model: str) -> Path | HubSource:
    """Say where the weights called `model` are, without touching the network.

    Args:
        model: one of the names in `PUBLISHED`; else a path that exists; else
            `owner/repo[/subfolder][@revision]`. A known name wins over a file of that name, so
            that a stray folder never replaces the default (`./NAME` is the folder); a path that
            exists wins over a repository.

    Raises:
        WeightsError: it is none of these.
    """
    published = next((entry for entry in PUBLISHED if entry.name == model), None)
    if published is not None:
        return _published_source(published)
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # what no path can be
        path = Path(model).expanduser()
        if model and path.exists():
            return path
    repository, _, revision = model.partition("@")
    match = _REPOSITORY.fullmatch(repository.rstrip("/"))
    if match is None or repository.endswith(_FILE_SUFFIXES):
        raise WeightsError(_unknown(model))
    return HubSource(match["repo"], match["subfolder"] or "", revision or None)


def embedded_folder(name: str) -> Path:
    """Find the folder of the embedded model `name`: in the installed package, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "weights" / name, package.parent / "weights" / name)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise WeightsError(
        f"the embedded model {name} is not in this installation (looked for {folders[0]} and "
        f"{folders[1]}): install the package again"
    )


def _published_source(entry: PublishedModel) -> Path | HubSource:
    if entry.source is None:
        return embedded_folder(entry.name)
    if entry.pickle is not None:
        folder = entry.source.subfolder
        raise WeightsError(
            f"{entry.name} is published as {entry.pickle}, a pickle, which is not executed: make "
            "safetensors of it once, and give DIR to --model:\n"
            f'  hf download {entry.source.repo} --include "{folder}/*" --local-dir DOWNLOADED\n'
            f"  wfvae convert DOWNLOADED/{folder}/{entry.pickle} -o DIR"
        )
    return entry.source


def _unknown(model: str) -> str:
    names = [entry.name for entry in PUBLISHED]
    near = difflib.get_close_matches(model.lower(), names, n=1, cutoff=0.5)
    nearest = f" Did you mean {near[0]}?" if near else ""
    return (
        f"no model {model!r}: there is no such file or folder, and it is not one of the names "
        f"{', '.join(names)}.{nearest} A folder with config.json and safetensors, a .safetensors "
        f"file, or owner/repo[/subfolder][@revision] on the Hugging Face Hub will do too"
    )
