"""Conversion of a cache to another format, without encoding again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

from wfvae_cli.audit.cache import Cache
from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.sources import ENCODED_OPTIONS, recorded_options
from wfvae_cli.dataset.config import EncodeConfig, ModelFingerprint
from wfvae_cli.dataset.exporters import make_exporter
from wfvae_cli.dataset.exporters.base import Exporter
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.options import Format
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import content_sha256, stamp
from wfvae_cli.dataset.store import OutputStore, create_root
from wfvae_cli.dataset.trainer_formats import TRAINER_FORMATS, Content
from wfvae_cli.dataset.windows import Window, Windows
from wfvae_cli.errors import InputError, LatentError, UsageError
from wfvae_cli.latents.header import LatentDtype
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.normalization import AppliedNormalization, Normalization
from wfvae_cli.models.load import describe_checkpoint, find_strides
from wfvae_cli.models.published import find_published
from wfvae_cli.pipeline.encode import SOURCE_SIZE
from wfvae_cli.pipeline.options import EncodeOptions
from wfvae_cli.strides import Strides

_MODES = ("wan", "wan22")
"""Families of which SimpleTuner stores the mode; of others a sample."""
_CHUNK = 16
"""Latent frames that are converted at once."""


@dataclass(frozen=True)
class Converted:
    """Result of a conversion."""

    written: int
    current: int
    """Clips that were there already."""


@dataclass(frozen=True)
class _Model:
    """A model, as headers describe it."""

    name: str
    sha256: str
    family: str
    strides: Strides
    channels: int
    normalization: Normalization | None


def convert_entries(
    cache: Cache,
    output: Path,
    form: Format,
    model: str | None,
    progress: Callable[[int], None] = lambda done: None,
) -> Converted:
    """Convert every clip of a cache; what is there already is left as it is.

    Args:
        cache: from `open_cache`.
        output: the folder to write into.
        form: what to write.
        model: that made the cache; None takes the headers' word.
        progress: called after every clip with 1.

    Raises:
        UsageError: the format cannot hold these latents.
        InputError: a clip cannot be read, or two would have one name.
        OutputError: the folder cannot be written, or holds what was converted otherwise.
    """
    for entry in cache.entries:
        if entry.read is None:
            raise InputError(f"{entry.name}: {entry.problems[0]}")
    made_by = _model_of(cache, model)
    content = _content(form, made_by, cache.entries[0])
    applied = None
    if content == "normalised":
        if made_by.normalization is None:
            raise UsageError(
                f"the format {form} stores normalised latents, and {made_by.name} gives no shift "
                "and scale"
            )
        shift, scale = made_by.normalization.shift, made_by.normalization.scale
        applied = AppliedNormalization(shift, scale, "config")
    dtype: LatentDtype = TRAINER_FORMATS[form].dtype if form in TRAINER_FORMATS else "float32"
    posterior = _posterior_of(cache, form, made_by)
    options = EncodeOptions(posterior=posterior, normalization=applied, save_dtype=dtype)
    config = EncodeConfig(options, format=form)
    clips = {item.relative: entry for entry in cache.entries for item in [_item(entry)]}
    items = [_item(entry) for entry in cache.entries]
    if len(clips) != len(items):
        raise InputError(f"{cache.path}: several clips would have one name in {form}")
    for entry in cache.entries:
        _check(entry, form)
    exporter = make_exporter(OutputStore(output), config)
    exporter.check(items)
    create_root(exporter.store)
    # What made the latents is not known in full: this tells them from what encode writes.
    fingerprint = ModelFingerprint(made_by.sha256, f"converted from {cache.format}", None)
    with closing(exporter):
        plan = exporter.begin(items, {}, fingerprint, "refuse")
        waiting = [task.item for task in plan.tasks if task.current is None]
        for item in waiting:
            entry = clips[item.relative]
            result = _convert(item, entry, exporter, config, made_by, fingerprint, applied)
            list(exporter.settle(result))
            progress(1)
        for task in plan.tasks:
            if task.current is not None:
                list(exporter.settle(task.current))
        list(exporter.flush())
    return Converted(len(waiting), len(items) - len(waiting))


def _convert(
    item: Item,
    entry: CacheEntry,
    exporter: Exporter,
    config: EncodeConfig,
    model: _Model,
    fingerprint: ModelFingerprint,
    applied: AppliedNormalization | None,
) -> ItemResult:
    assert entry.read is not None
    marked = stamp(item.path)
    options = config.options_of(item, fingerprint, content_sha256(item.path, marked))
    metadata = _metadata(entry, model, options, applied)
    frames = metadata.frames
    latents = entry.read()
    source = entry.metadata
    had = None if source is None or source.normalization is None else source.normalization
    target = exporter.open(item, replace(metadata, frames=0, pad_frames=0), options)
    try:
        for begin in range(0, latents.size(1), _CHUNK):
            part = latents[:, begin : begin + _CHUNK].float()
            if entry.content == "normalised" and not (had is not None and had == applied):
                undone = model.normalization if had is None else Normalization(had.shift, had.scale)
                if undone is None:
                    raise UsageError(f"{entry.name}: {model.name} gives no shift and scale to undo")
                part = undone.undo(part)
            if applied is not None and not (had is not None and had == applied):
                part = Normalization(applied.shift, applied.scale).apply(part)
            target.append(part, None)
        written = target.finish(frames, None, metadata.last_duration)
    finally:
        target.close()
    return ItemResult(
        item.relative,
        item.path,
        "done",
        output=written.output,
        frames=frames,
        shape=written.shape,
        bytes=written.bytes,
        stamp=marked,
        fingerprint=config.fingerprint(item, fingerprint),
    )


def _metadata(
    entry: CacheEntry, model: _Model, options: EncodeOptions, applied: AppliedNormalization | None
) -> LatentMetadata:
    """Say of a clip what its cache says; sizes that nothing says are those of its latents."""
    extra = dict(options.extra)
    if entry.source_size is not None:
        extra[SOURCE_SIZE] = "{}x{}".format(*entry.source_size)
    if entry.metadata is not None:
        had = entry.metadata.extra
        kept = {k: v for k, v in had.items() if k not in extra and k != "item"}
        kept.setdefault(ENCODED_OPTIONS, had.get("options", ""))
        return replace(
            entry.metadata,
            normalization=applied,
            extra={**kept, **extra},
            posterior=options.posterior,
            seed=entry.metadata.seed if options.posterior == "sample" else None,
        )
    grid, strides = entry.grid, model.strides
    if grid is None or grid[0] != model.channels:
        raise LatentError(
            f"{entry.name}: expected {model.channels} channels of {model.name}, got the shape "
            f"{list(entry.shape)}"
        )
    padded = strides.frames_of(grid[1])
    fits = entry.frames and strides.padded_frames(entry.frames) == padded
    frames = entry.frames if entry.frames and fits else padded
    rate = entry.frame_rate
    return LatentMetadata(
        model=model.name,
        model_sha256=model.sha256,
        family=model.family,
        strides=strides,
        channels=model.channels,
        width=grid[3] * strides.width,
        height=grid[2] * strides.height,
        frames=frames,
        pad_frames=padded - frames,
        posterior=options.posterior,
        normalization=applied,
        frame_rate=None if rate is None else Fraction(rate).limit_denominator(1001),
        is_image=grid[1] == 1 and rate is None,
        source=entry.stem or "",
        extra=extra,
    )


def _model_of(cache: Cache, name: str | None) -> _Model:
    infos = [entry.metadata for entry in cache.entries if entry.metadata is not None]
    others = {info.model_sha256 for info in infos}
    if len(others) > 1:
        raise InputError(
            f"{cache.path}: made by {len(others)} different weights: convert them one by one"
        )
    if name is None and infos and len(infos) == len(cache.entries):
        return _of_header(infos[0])
    if name is None:
        raise UsageError(
            f"{cache.path}: {cache.format} does not say which model made it: give it with --model"
        )
    facts = describe_checkpoint(name)
    if others and facts["sha256"] not in others:
        raise UsageError(f"{cache.path}: these latents were made by other weights than {name}")
    values = facts["normalization"]
    return _Model(
        name,
        facts["sha256"],
        facts["family"],
        find_strides(name),
        facts["latent_channels"],
        None if values is None else Normalization(values["shift"], values["scale"]),
    )


def _of_header(info: LatentMetadata) -> _Model:
    """Read a header; shift and scale are an embedded or local checkpoint's where it has none."""
    had = info.normalization
    normalization = None if had is None else Normalization(had.shift, had.scale)
    published = find_published(info.model)
    if normalization is None and (Path(info.model).exists() or published is not None):
        local = published is None or published.source is None
        facts = describe_checkpoint(info.model) if local else None
        if facts is not None and facts["sha256"] == info.model_sha256:
            values = facts["normalization"]
            if values is not None:
                normalization = Normalization(values["shift"], values["scale"])
    return _Model(
        info.model, info.model_sha256, info.family, info.strides, info.channels, normalization
    )


def _content(form: Format, model: _Model, first: CacheEntry) -> Content:
    if form in TRAINER_FORMATS:
        return TRAINER_FORMATS[form].content_of(model.family, model.name)
    return first.content or "raw"


def _posterior_of(cache: Cache, form: Format, model: _Model) -> Literal["mean", "sample"]:
    """Say what all clips of a cache store of the posterior; of moments the mean is taken.

    Raises:
        UsageError: the format cannot hold it, it differs from clip to clip, or nothing says it.
    """
    found = set()
    for entry in cache.entries:
        posterior = entry.posterior
        if posterior is None and entry.format == "SimpleTuner" and model.family in _MODES:
            posterior = "mean"
        found.add("mean" if posterior == "moments" else posterior)
        if posterior == "sample" and (form in TRAINER_FORMATS or entry.metadata is None):
            wanted = "the posterior's mean" if form in TRAINER_FORMATS else "the seed of a sample"
            raise UsageError(
                f"{entry.name}: the format {form} stores {wanted}, and this is a sample of it that "
                "cannot be turned into that: encode the source again"
            )
        if posterior is None:
            raise UsageError(
                f"{entry.name}: nothing says whether these latents are the posterior's mean or a "
                "sample: encode the source again"
            )
    if len(found) > 1:
        raise UsageError(f"{cache.path}: holds means and samples: convert them one by one")
    return "sample" if found == {"sample"} else "mean"


def _check(entry: CacheEntry, form: Format) -> None:
    """Refuse what a format cannot hold of a clip."""
    if entry.content is None:
        raise UsageError(f"{entry.name}: nothing says whether these latents are normalised")
    if form == "musubi" and entry.source_size is None:
        raise UsageError(
            f"{entry.name}: musubi-tuner picks buckets by the size of the source, which this cache "
            "does not say: encode the source again"
        )
    if form == "ltx" and entry.frame_rate is None and (entry.grid or (0, 2))[1] > 1:
        raise UsageError(
            f"{entry.name}: the LTX-2 trainer needs the frame rate, which this cache does not say: "
            "encode the source again"
        )


def _item(entry: CacheEntry) -> Item:
    """Give the name that an encoding of the source would have, as far as it is known."""
    path, window = str(entry.path.absolute()), _window(entry)
    name = entry.name.rpartition("#")[2] if "#" in entry.name else entry.name
    if entry.format == "wfvae" or ("#" in entry.name and entry.format != "FastVideo"):
        if entry.format != "wfvae":
            name = name.replace("%2E", ".").replace("%25", "%")
        name = name.removesuffix(".safetensors")
        item = Item(path, name if window is None else name.removesuffix(f"_{window}"))
    else:
        folder = PurePosixPath(entry.name).parent
        stem = entry.stem or PurePosixPath(name).stem
        inside = str(folder).removeprefix(".precomputed/latents").strip("/")
        flat = entry.format in ("musubi-tuner", "FastVideo") or inside in ("", ".")
        relative = stem if flat else f"{inside}/{stem}"
        item = Item(path, relative, id=relative)
    if window is None:
        return item
    # Which windows were taken of each clip decides on the names of some formats.
    text = recorded_options(entry).get("windows")
    return replace(item, windows=None if text is None else Windows.parse(text)).part(window)


def _window(entry: CacheEntry) -> Window | None:
    """Return the part of its source that a clip is, where the cache says that it is one."""
    if entry.metadata is not None:
        return Window.parse(entry.metadata.extra.get("window", ""))
    return Window(entry.position, entry.frames) if entry.position and entry.frames else None
