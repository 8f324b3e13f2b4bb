"""`wfvae audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.output import Overwrite
from wfvae_cli.cli.params import options_given
from wfvae_cli.cli.paths import on_this_machine
from wfvae_cli.errors import PartialFailureError, UsageError
from wfvae_cli.models.options import RunOptions, model_option
from wfvae_cli.option import Argument, Option

if TYPE_CHECKING:
    from wfvae_cli.audit.audit import KnownModel
    from wfvae_cli.audit.entry import CacheEntry
    from wfvae_cli.models.base import Task

EXAMPLES = """
    wfvae audit latents/
    wfvae audit cache/ --model wan-2.1 --source videos/
    wfvae audit latents/ --decode 4 sheets/
    wfvae audit latents/ --json
"""


def audit(
    cache: Annotated[
        str,
        Argument(
            "CACHE",
            "A folder of latents, or one file: of wfvae, musubi-tuner, LTX-2, SimpleTuner, "
            "Energon, finetrainers, FastVideo or ai-toolkit.",
        ),
    ],
    run: RunOptions,
    console: Console,
    model: Annotated[
        str | None,
        model_option("The model that made it; by default the one that the cache's headers name."),
    ] = None,
    source: Annotated[
        list[str] | None,
        Option(
            "The videos and images that it was made from: some are encoded again and compared.",
            metavar="VIDEOS",
            common=True,
        ),
    ] = None,
    compare: Annotated[
        int, Option("Clips that --source compares.", metavar="K", least=1, common=True)
    ] = 8,
    decode: Annotated[
        tuple[int, Path] | None,
        Option("Write contact sheets of K clips.", metavar="K DIR", common=True),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Check a cache of latents, whichever program wrote it.

    Says of each clip whether shapes, names and numbers fit; of all, whether latents are raw,
    normalised or scaled in another way; and with --source, whether they are the posterior's mean, a
    sample of it, or which usual mistake made them. Ends with 7 where something is wrong.
    Nothing is unpickled but tensors, numbers and strings.
    """
    from wfvae_cli.audit.audit import audit_cache, compare_with_sources, write_sheets
    from wfvae_cli.audit.cache import open_cache
    from wfvae_cli.audit.sources import Sources
    from wfvae_cli.cli.audit_output import print_report

    if decode is not None and decode[0] < 1:
        raise UsageError(f"--decode: expected at least 1 clip, got {decode[0]}")
    if source is None and "--compare" in options_given():
        raise UsageError("--compare says how many clips --source compares: add --source VIDEOS")
    found = open_cache(on_this_machine(cache))
    known = _known(model, found.entries)
    needs_model = source or decode
    if needs_model and known.name is None:
        raise UsageError(
            f"{cache} does not say which model made it: give it with --model, to compare or decode"
        )
    with console.progress("reading", len(found.entries), "clips") as progress:
        report = audit_cache(found, known, progress)
    if needs_model:
        assert known.name is not None
        task: Task = "both" if source and decode else "encode" if source else "decode"
        loaded = run.load(known.name, task)
        sources = Sources(source) if source else None
        if sources is not None:
            unknown = compare_with_sources(report, sources, loaded, compare)
            if unknown:
                console.note(f"{unknown} clips whose source is not known were not compared")
        if decode is not None:
            write_sheets(report, loaded, *decode, sources, overwrite=overwrite)
    if console.json:
        console.result(report.to_json())
    elif not console.quiet:
        print_report(report)
    if not report.is_sound:
        count = len(report.by_clip)
        raise PartialFailureError(
            f"{cache}: something is wrong with {count} of {len(report.clips)} clips"
            + "".join(f"; {problem}" for problem in report.problems[:3])
        )


def _known(name: str | None, entries: tuple[CacheEntry, ...]) -> KnownModel:
    """Describe the model without its weights: by the checkpoint, or by the cache's headers."""
    from wfvae_cli.audit.audit import KnownModel, known_model
    from wfvae_cli.audit.hypotheses import known_normalization
    from wfvae_cli.errors import WeightsError
    from wfvae_cli.latents.normalization import Normalization
    from wfvae_cli.models.load import describe_checkpoint
    from wfvae_cli.models.published import find_published

    of_cache = known_model(entries)
    named = name or of_cache.name
    if named is None:
        return of_cache
    published = find_published(named)
    if name is None and (published is None or published.source is not None):
        return of_cache  # a header's word is no reason to download weights
    figures = None if published is None else known_normalization(published.family)
    if published is not None and figures is not None:
        return KnownModel(named, published.channels, figures, published.family)
    try:
        facts = describe_checkpoint(named)
    except WeightsError:
        if name is not None:
            raise
        return of_cache
    values = facts["normalization"]
    of_config = None if values is None else Normalization(values["shift"], values["scale"])
    normalization = of_config or of_cache.normalization
    return KnownModel(
        named, facts["latent_channels"], normalization, facts["family"], facts["sha256"]
    )
