"""`wfvae compare`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import tell_unused_fit
from wfvae_cli.cli.paths import check_outputs
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.media.options import Sampling
from wfvae_cli.option import Argument, Option
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from wfvae_cli.metrics.compare import Measures
    from wfvae_cli.metrics.protocol import Protocol

EXAMPLES = """
    wfvae compare in.mp4 roundtrip.mp4
    wfvae compare in.mp4 roundtrip.mp4 --html report/
    wfvae compare originals/ wfvae/ wan/ --html report/
    wfvae compare in.mp4 roundtrip.mp4 --report frames.csv --plot frames.png
    wfvae compare originals/ reconstructions/ --report files.json --worst 3 stills/
    wfvae compare originals/ reconstructions/ --lpips --fid --fid-weights inception.pth
    wfvae compare originals/ reconstructions/ --protocol wf-vae --lpips
"""
_METRICS, _OUT = "Metrics", "Output"


def compare(
    original: Annotated[str, Argument("ORIGINAL", "A video, an image, or a directory of them.")],
    reconstructions: Annotated[
        list[str],
        Argument(
            "RECONSTRUCTION...",
            "The same, one for each model; of directories, files of equal relative path belong "
            "together, whatever their suffix.",
        ),
    ],
    targets: m.Targets,
    learned: m.Learned,
    sampling: Sampling,
    console: Console,
    ms_ssim: Annotated[
        bool, Option("MS-SSIM too.", _METRICS, flags=("--ms-ssim/--no-ms-ssim",))
    ] = True,
    protocol: Annotated[
        str | None,
        Option(
            "Take frames, size, crop, LPIPS backbone and FVD window as a paper did: wf-vae.",
            _METRICS,
            metavar="NAME",
        ),
    ] = None,
    device: Annotated[str, Option("Of learned metrics: auto, cpu, cuda.", _METRICS)] = "auto",
    stats: Annotated[
        list[Path] | None,
        Option(
            "With --html: statistics of the latents (wfvae stats -o), once for each "
            "reconstruction.",
            _OUT,
            metavar="FILE.json",
        ),
    ] = None,
) -> None:
    """Measure how videos, images or directories of them differ from their originals.

    Frames are paired by position and compared as shown: RGB, clamped and rounded, 8 bits (16 where
    either side is deeper). Options of frames and size apply to all sides.
    """
    from wfvae_cli.cli import compare_work as w
    from wfvae_cli.metrics.protocol import find_protocol

    chosen = None if protocol is None else find_protocol(protocol)
    if chosen is not None:
        if sampling != Sampling():
            raise UsageError("--protocol says which frames at what size: leave those options out")
        sampling = chosen.sampling
        learned = replace(learned, lpips_net=chosen.lpips_net)
    tell_unused_fit(sampling)
    folders = _are_folders(original, reconstructions)
    title, labels = w.labels_of(original, reconstructions)
    check_outputs(
        [targets.report, targets.plot],
        [
            original,
            *reconstructions,
            learned.lpips_weights,
            learned.fid_weights,
            learned.fvd_weights,
        ],
    )
    targets.check()
    _check_stats(stats or [], targets, len(reconstructions))
    job = w.Job(
        original=original,
        reconstructions=tuple(reconstructions),
        title=title,
        labels=labels,
        folders=folders,
        sampling=sampling,
        measures=_measures(learned, device, chosen, ms_ssim=ms_ssim),
        protocol=chosen,
        targets=targets,
        stats=tuple(stats or ()),
        options=w.describe_options(sampling, learned, ms_ssim=ms_ssim),
    )
    w.run(console, job)


def _check_stats(stats: list[Path], targets: m.Targets, sides: int) -> None:
    """Refuse statistics of latents without `--html`, or not one for each reconstruction.

    Raises:
        UsageError: there is no page, or not one file for each of `sides` reconstructions.
    """
    if stats and targets.html is None:
        raise UsageError("--stats is for the page: add --html, or leave --stats out")
    if stats and len(stats) != sides:
        raise UsageError(
            f"expected --stats once for each of {sides} reconstructions, in their order, "
            f"got {len(stats)}"
        )


def _are_folders(original: str, reconstructions: list[str]) -> bool:
    """Return True where directories are compared rather than files.

    Raises:
        InputError: a path does not exist, where some are directories.
        UsageError: there are directories and files.
    """
    paths = [original, *reconstructions]
    folders = [Path(path).is_dir() for path in paths]
    if any(folders) != all(folders):
        for path in paths:
            if not Path(path).exists():
                why = why_unreadable(path, "a folder like the other ones", FileNotFoundError())
                raise InputError(f"{path}: {why}")
        raise UsageError(f"expected only files or only directories, got both: {', '.join(paths)}")
    return all(folders)


def _measures(
    learned: m.Learned, device: str, protocol: Protocol | None, *, ms_ssim: bool
) -> Callable[[], Measures]:
    """Return a factory of the metrics of each set of reconstructions."""

    def make() -> Measures:
        if protocol is None:
            return learned.measures(device, ms_ssim=ms_ssim)
        measures = replace(learned, fvd_weights=None).measures(device, ms_ssim=ms_ssim)
        distances = measures.distances
        if learned.fvd_weights is not None:
            from wfvae_cli.metrics.frechet import clip_fvd
            from wfvae_cli.models.load import resolve_device

            fvd = clip_fvd(
                learned.fvd_weights, window=protocol.fvd_window, device=resolve_device(device)
            )
            distances = (*distances, fvd)
        return replace(measures, distances=distances, frames=protocol.sampling.frames)

    return make
