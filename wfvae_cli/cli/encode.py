"""`wfvae encode`."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import (
    DatasetOptions,
    is_dataset,
    list_items,
    run_job,
    tell_unused_fit,
    use_threads,
)
from wfvae_cli.cli.output import Overwrite, display
from wfvae_cli.cli.params import options_given
from wfvae_cli.cli.run import import_torch
from wfvae_cli.dataset.options import (
    DryRun,
    EngineOptions,
    FormatOptions,
    NoCaptions,
    PartOptions,
    Selection,
    WorkOptions,
)
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.media.options import Hwaccel, ImageMemory, Sampling
from wfvae_cli.models.options import DEFAULT_MODEL, ModelName, RunOptions
from wfvae_cli.option import Argument, Option
from wfvae_cli.pipeline.options import EncodeOptions, Limits, check_batch
from wfvae_cli.strides import Strides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wfvae_cli.dataset.encode_job import EncodeJob
    from wfvae_cli.dataset.items import Item
    from wfvae_cli.latents.normalization import Normalization

EXAMPLES = """
    wfvae encode in.mp4 -o z.safetensors
    wfvae encode in.mp4 -o z.safetensors --start 10 --duration 5 --size 512x288
    ffmpeg -i in.mov -f matroska - | wfvae encode - -o - | wfvae decode - -o out.mp4
    wfvae encode videos/ -o latents/ --short-side 256 --batch auto
    wfvae encode list.csv -o latents/ --shard 3/16
    wfvae encode videos/ -o latents/ --buckets 960x544x49,544x960x49 --windows all
    wfvae encode videos/ -o shards/ --format webdataset --engine ray
"""
_SUFFIX = ".safetensors"

log = logging.getLogger("wfvae")


@dataclass(frozen=True)
class Normalize:
    """Options of normalising latents."""

    normalize: Annotated[
        bool,
        Option(
            "Store (z - shift) * scale with the config's values, or those of --stats; decoding "
            "undoes it.",
            "Latents",
            common=True,
        ),
    ] = False
    stats: Annotated[
        Path | None,
        Option(
            "Take shift and scale from a file of wfvae stats, with --normalize.",
            "Latents",
            metavar="FILE.json",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse statistics without `--normalize`."""
        if self.stats is not None and not self.normalize:
            raise UsageError("--stats says what --normalize applies: add --normalize")

    def applied(
        self, options: EncodeOptions, model: str, sha256: str, of_config: Normalization | None
    ) -> EncodeOptions:
        """Add the shift and scale that are asked for to `options`.

        Raises:
            WeightsError: the config has none, or the statistics are another model's.
        """
        if not self.normalize:
            return options

        from wfvae_cli.latents.normalization import AppliedNormalization
        from wfvae_cli.stats.scale import load_normalization

        if self.stats is not None:
            stored = load_normalization(self.stats, model_sha256=sha256)
            found = AppliedNormalization(stored.shift, stored.scale, stored.identity)
        elif of_config is not None:
            found = AppliedNormalization(of_config.shift, of_config.scale, "config")
        else:
            raise WeightsError(
                f"{model} cannot normalise latents: its config.json gives no shift and scale; "
                "measure them with wfvae stats, and give its file with --stats"
            )
        return replace(options, normalization=found)


def encode(
    sources: Annotated[
        list[str],
        Argument(
            "INPUT...",
            "A video, an image, a %05d frame pattern, or - for stdin. Or a dataset: directories, "
            "globs, manifests (.txt, .csv, .jsonl, .parquet), several files, or URLs of these.",
        ),
    ],
    output: Annotated[
        str,
        Option(
            "A .safetensors file, or -; a dataset's folder.",
            flags=("--output", "-o"),
            metavar="OUT",
        ),
    ],
    run: RunOptions,
    options: EncodeOptions,
    normalize: Normalize,
    sampling: Sampling,
    selection: Selection,
    parts: PartOptions,
    form: FormatOptions,
    work: WorkOptions,
    limits: Limits,
    engine: EngineOptions,
    console: Console,
    model: ModelName = DEFAULT_MODEL,
    hwaccel: Hwaccel = "none",
    max_image_memory: ImageMemory = None,
    overwrite: Overwrite = False,
    no_captions: NoCaptions = False,
    dry_run: DryRun = False,
) -> None:
    """Turn a video, an image or a whole dataset into latents.

    A latent file says how to undo everything: frame rate or timestamps, size, padding, colours,
    and which weights made it. A dataset is resumed by the same command: only what is missing is
    done, a file that cannot be read is recorded in OUT/manifest.jsonl, and the run goes on.
    """
    from wfvae_cli.media.hwaccel import check

    console.check_stdout(output)
    check(hwaccel)
    if options.seed and options.posterior != "sample":
        log.info("--seed: not used, since only --posterior sample draws noise")
    tell_unused_fit(sampling, with_buckets=parts.buckets is not None)
    dataset = DatasetOptions(selection, work, limits, engine, overwrite)
    asked = parts.asked
    if form.chosen != "files":
        asked = asked or f"--format {form.chosen}"
    if dry_run:
        asked = asked or "--dry-run"
    if not is_dataset(sources, output, dataset, (_SUFFIX,), example="latents/", asked=asked):
        _encode_one(
            sources[0], output, console, run, options, normalize, sampling, work, model, hwaccel,
            max_image_memory, overwrite=overwrite,
        )  # fmt: skip
        return
    if not dry_run:
        dataset = dataset.isolated()
    if model == DEFAULT_MODEL:
        console.warn(
            f"{DEFAULT_MODEL} is a toy to try things with: for latents to train on, choose another "
            "--model (wfvae models lists them)"
        )
    if run.compile and parts.buckets is None and sampling.size is None:
        raise UsageError("--compile suits clips of one size: say which with --size or --buckets")

    from wfvae_cli.dataset.captions import add_captions
    from wfvae_cli.dataset.config import EncodeConfig, TarFormat
    from wfvae_cli.dataset.encode_job import EncodeJob
    from wfvae_cli.dataset.store import OutputStore

    options = _dataset_options(options, normalize, form, model)
    config = EncodeConfig(
        options=options,
        sampling=sampling,
        batch=work.batch,
        format=form.chosen,
        tar=TarFormat(form.shard_clips, form.shard_size << 20),
        buckets=None if parts.buckets is None else parts.chosen(_strides_of(model)),
        windows=parts.windows,
    )
    job = EncodeJob(
        OutputStore.of(output), config, **dataset.job_options(run, model, hwaccel, max_image_memory)
    )
    items = list_items(sources, selection)
    if not no_captions:
        items = add_captions(items)
    if dry_run:
        _estimate(items, output, job, dataset, console)
        return
    run_job(sources, output, job, dataset, console, items=items)


def _estimate(
    items: Sequence[Item], output: str, job: EncodeJob, dataset: DatasetOptions, console: Console
) -> None:
    from wfvae_cli.cli.dry_run_view import tell_estimate
    from wfvae_cli.dataset.dry_run import estimate_run
    from wfvae_cli.dataset.shard import Shard

    if dataset.selection.shard is not None:
        items = Shard.parse(dataset.selection.shard).of(items)
    tell_estimate(console, output, estimate_run(items, job, dataset.conflict))


def _strides_of(model: str) -> Strides:
    """Return the frames and pixels that a latent covers; no weights are loaded for it."""
    from wfvae_cli.models.published import find_published

    published = find_published(model)
    if published is not None:
        return published.strides

    from wfvae_cli.models.load import find_strides

    return find_strides(model)


def _dataset_options(
    options: EncodeOptions, normalize: Normalize, form: FormatOptions, model: str
) -> EncodeOptions:
    """Add what only the checkpoint knows; its weights are not loaded for it."""
    from wfvae_cli.dataset.config import check_posterior
    from wfvae_cli.dataset.trainer_formats import TRAINER_FORMATS

    trainer = TRAINER_FORMATS.get(form.chosen)
    if not normalize.normalize and trainer is None:
        return options

    from wfvae_cli.latents.normalization import Normalization
    from wfvae_cli.models.load import describe_checkpoint

    facts = describe_checkpoint(model)
    if trainer is not None:
        check_posterior(form.chosen, options)
        if "--save-dtype" in options_given() and options.save_dtype != trainer.dtype:
            raise UsageError(
                f"--format {form.chosen} stores {trainer.dtype}: leave --save-dtype "
                f"{options.save_dtype} out"
            )
        wanted = trainer.content_of(facts["family"], model) == "normalised"
        if normalize.normalize and not wanted:
            raise UsageError(
                f"--format {form.chosen} stores the latents of {model} as the model gives them: "
                "leave --normalize out"
            )
        options = replace(options, save_dtype=trainer.dtype)
        normalize = replace(normalize, normalize=wanted)
    found = facts["normalization"]
    of_config = None if found is None else Normalization(found["shift"], found["scale"])
    return normalize.applied(options, model, facts["sha256"], of_config)


def _encode_one(
    source: str,
    output: str,
    console: Console,
    run: RunOptions,
    options: EncodeOptions,
    normalize: Normalize,
    sampling: Sampling,
    work: WorkOptions,
    model: str,
    hwaccel: str,
    image_memory: int | None,
    *,
    overwrite: bool,
) -> None:
    from wfvae_cli.atomic import check_output
    from wfvae_cli.cli.paths import check_latents_name, check_outputs
    from wfvae_cli.media.reader import open_clip

    check_outputs([output], [source, normalize.stats], model)
    check_latents_name(output)
    check_output(output, overwrite=overwrite)
    check_batch(work.batch, options.tile)
    with open_clip(
        source, sampling, hwaccel=hwaccel, image_memory=image_memory, trusted=True
    ) as reader:
        import_torch()  # what is wrong with the input or output has been told without it
        from wfvae_cli.pipeline.encode import encode_clip

        loaded = run.load(model, "encode")
        use_threads(run.device, work.threads)
        options = normalize.applied(options, model, loaded.sha256, loaded.vae.normalization)
        if options.posterior == "sample":
            options = replace(options, seed=_seed_of(source, options.seed, sampling))
        with console.progress("encoding", reader.info.frames) as progress:
            done = encode_clip(
                reader,
                sys.stdout.buffer if output == "-" else output,
                loaded,
                options=options,
                batch=work.batch,
                overwrite=overwrite,
                progress=progress,
            )
    shape = "x".join(map(str, done.latent_shape))
    console.say(
        f"{display(output)}: {done.frames} frames of {done.width}x{done.height} as {shape} "
        f"latents in {done.seconds:.1f} s ({done.frames / done.seconds:.1f} frames/s)"
    )
    console.result(
        {
            "input": source,
            "output": output,
            "model": loaded.name,
            "model_sha256": loaded.sha256,
            "frames": done.frames,
            "width": done.width,
            "height": done.height,
            "shape": list(done.latent_shape),
            "tile": done.tile,
            "seconds": round(done.seconds, 3),
        }
    )


def _seed_of(source: str, seed: int, sampling: Sampling) -> int:
    """Derive the seed that a file has in a dataset, too; a pipe has the seed itself."""
    from wfvae_cli.dataset.config import clip_seed
    from wfvae_cli.dataset.remote import is_url
    from wfvae_cli.dataset.source import content_sha256, stamp

    if source == "-" or is_url(source) or Path(source).is_fifo():
        return seed
    return clip_seed(seed, source, content_sha256(source, stamp(source)), sampling.start)
