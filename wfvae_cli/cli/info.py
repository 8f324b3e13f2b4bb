"""`wfvae info`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from wfvae_cli.cli.console import Console
from wfvae_cli.errors import InputError
from wfvae_cli.local_path import local_path
from wfvae_cli.models.names import PICKLE_SUFFIXES
from wfvae_cli.option import Argument
from wfvae_cli.unreadable import why_unreadable

EXAMPLES = """
    wfvae info z.safetensors
    wfvae info in.mp4 --json
    wfvae info wfvae-tiny
    wfvae info wan-2.2
"""


_SIZES = {"shape", "source_size", "strides"}
"""Fields whose numbers belong together."""


def info(
    source: Annotated[
        str,
        Argument(
            "FILE",
            "A latent file or a cache of them, a checkpoint, a model's name, statistics, a "
            "video or an image.",
        ),
    ],
    console: Console,
) -> None:
    """Say what a latent file or cache, a checkpoint, statistics, a video or an image is."""
    facts = _describe(source)
    if console.json:
        console.result(facts)
    else:
        _print_table(facts)


def _describe(source: str) -> dict[str, Any]:
    from wfvae_cli.dataset.items import SUFFIXES
    from wfvae_cli.dataset.remote import is_web
    from wfvae_cli.latents.file import is_latent_file

    path = local_path(source)
    source = str(path) if source.startswith("file://") else source
    cache = _describe_cache(path) if _may_be_cache(path) else None
    if cache is not None:
        return cache
    if (
        path.is_dir()
        and not any(path.glob("*.safetensors*"))
        and not (path / "config.json").exists()
    ):
        raise InputError(
            f"{source}: a folder that holds neither latents nor a checkpoint: name a file in it "
            f"(what a folder of videos holds, wfvae encode {shlex.quote(source)} -o OUT --dry-run "
            "says)"
        )
    if path.name.endswith((*PICKLE_SUFFIXES, ".safetensors.index.json")):
        return _describe_model(source)
    if path.is_file() and path.suffix == ".safetensors":
        return _describe_latents(source) if is_latent_file(path) else _describe_model(source)
    if path.is_file() and path.suffix == ".json":
        return _describe_stats(path)
    if is_web(source) or path.is_file() or path.is_fifo() or "%" in source or source == "-":
        return _describe_clip(source)
    if not path.exists() and any(path.suffix.lower() in each for each in SUFFIXES.values()):
        expected = "a latent file, a checkpoint, a video or an image"
        raise InputError(f"{source}: {why_unreadable(source, expected, FileNotFoundError())}")
    return _describe_model(source)


def _may_be_cache(path: Path) -> bool:
    """Return True where a path may hold latents in the form of a trainer, or many of ours."""
    if path.is_dir():
        return not (path / "config.json").exists()
    is_file = path.is_file() and path.suffix in (".safetensors", ".pt", ".tar", ".parquet")
    if not is_file or path.suffix != ".safetensors":
        return is_file
    from wfvae_cli.latents.file import is_latent_file

    return not is_latent_file(path)


def _describe_cache(path: Path) -> dict[str, Any] | None:
    """Describe a cache of latents; None where it is none."""
    from wfvae_cli.audit.cache import open_cache

    try:
        cache = open_cache(path)
    except InputError:
        return None
    readable = [entry for entry in cache.entries if entry.read is not None]
    shapes = Counter(tuple(entry.shape) for entry in readable)
    return {
        "kind": "cache of latents",
        "format": cache.format,
        "clips": len(cache.entries),
        "unreadable": len(cache.entries) - len(readable),
        "shapes": {"x".join(map(str, shape)): count for shape, count in shapes.most_common(8)},
        "dtypes": sorted({entry.dtype for entry in readable}),
        "families": sorted({entry.family for entry in readable if entry.family}),
        "models": sorted({e.metadata.model for e in readable if e.metadata is not None}),
        "bytes": sum(entry.bytes for entry in cache.entries),
        "more": f"wfvae audit {shlex.quote(str(path))}",
    }


def _describe_latents(source: str) -> dict[str, Any]:
    from wfvae_cli.latents.file import LatentFile

    with LatentFile(source) as file:
        fields = {name: _plain(value) for name, value in asdict(file.metadata).items()}
        fields["strides"] = file.metadata.strides.to_json()
        return {
            "kind": "latents",
            "shape": list(file.shape),
            "dtype": file.dtype,
            "checksum": "matches" if file.verify() else "none",
            "variable_frame_rate": file.has_pts,
            **fields,
        }


def _describe_stats(path: Path) -> dict[str, Any]:
    from wfvae_cli.stats.report import StatsReport

    report = StatsReport.load(path)
    found = report.summary
    return {
        "kind": "statistics of latents",
        "model": report.model.name,
        "model_sha256": report.model.sha256,
        "family": report.model.family,
        "clips": found.clips,
        "failed": len(report.stats.failed),
        "latents_per_channel": found.count,
        "channels": len(found.mean),
        "mean": found.global_mean,
        "std": found.global_std,
        "kl_total": found.kl_total,
        **report.options,
    }


def _describe_clip(source: str) -> dict[str, Any]:
    from wfvae_cli.media.reader import probe

    clip = probe(source, trusted=True)
    facts = {name: _plain(value) for name, value in asdict(clip).items()}
    return {"kind": "image" if facts.pop("is_image") else "video", **facts}


def _describe_model(source: str) -> dict[str, Any]:
    from wfvae_cli.cli.models import describe
    from wfvae_cli.models.published import find_published

    entry = find_published(source)
    known = {} if entry is None else describe(entry)
    if known and not (known["embedded"] or known["cached"]):
        # What can be said without a download; the other commands make it.
        return {"kind": "published model", **known}
    from wfvae_cli.models.load import describe_checkpoint

    published: dict[str, Any] = {key: known[key] for key in ("source", "licence") if key in known}
    return {"kind": "checkpoint", **describe_checkpoint(source), **published}


def _plain(value: Any) -> Any:
    """A value as JSON has it; fractions as their exact text."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _print_table(facts: Mapping[str, Any]) -> None:
    from wfvae_cli.cli.tables import print_facts, size_text

    shown = {k: v for k, v in facts.items() if v is not None and v not in ("", [], {})}
    if "normalization" in shown and "config" in shown:  # whose lists they came from
        lists = {k for k, v in shown["config"].items() if isinstance(v, list) and len(v) > 8}
        shown["config"] = {k: v for k, v in shown["config"].items() if k not in lists}
    if isinstance(strides := shown.get("strides"), dict):
        shown["strides"] = [value for value in strides.values() if isinstance(value, int)]
        shown |= {name: value for name, value in strides.items() if isinstance(value, str)}
    lines = {name: _line(value) for name, value in shown.items()}
    lines |= {name: "x".join(map(str, shown[name])) for name in shown.keys() & _SIZES}
    if "bytes" in shown:
        lines["bytes"] = f"{shown['bytes']} ({size_text(shown['bytes'])})"
    if "parameters" in shown:
        lines["parameters"] = f"{shown['parameters']:,}"
    print_facts({name.replace("_", " "): line for name, line in lines.items()})


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_line, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
