"""What is left to do of a dataset: what is there, what made it, and whether that still holds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from wfvae_cli.dataset.config import WEIGHTS, EncodeConfig, ModelFingerprint, difference
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.layouts import Existing, Layout
from wfvae_cli.dataset.prefetch import Task
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import stamp
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import InputError, OutputError
from wfvae_cli.latents.file import CHECKSUM
from wfvae_cli.latents.header import read_header
from wfvae_cli.latents.raw import Digest

_log = logging.getLogger("wfvae")

Conflict = Literal["refuse", "overwrite", "keep"]
"""What to do with an output that is complete and was made with other options or weights."""

_LOOKERS = 16
"""Threads that look at outputs: on a network file system each look takes a while."""
_EXAMPLES = 3
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """Every item, by what is to become of it."""

    tasks: Sequence[Task]
    """To be encoded, in order."""
    done: Sequence[ItemResult]
    """Up to date."""
    kept: Sequence[ItemResult]
    """Made with other options, and left as they are."""


@dataclass(frozen=True)
class _Conflicting:
    item: Item
    found: Existing
    difference: str


def plan_run(
    items: Iterable[Item],
    last: Mapping[str, ItemResult],
    place: OutputStore,
    layout: Layout,
    recipe: EncodeConfig,
    identity: ModelFingerprint,
    conflict: Conflict,
    *,
    verify: bool = False,
) -> Plan:
    """Sort items by what is to be done with them.

    An output is up to date if it is complete, its weights and options are these, and its source
    has not changed: by size and time where the manifest knows these of the source, else by the
    hash of its content, which is left to the worker that would encode it.

    Args:
        items: all of the dataset.
        last: what counts of the manifest, by item.
        place: the output folder.
        layout: how outputs are named.
        recipe: how they are to be made now.
        identity: by which model.
        conflict: what to do with outputs that were made otherwise.
        verify: whether to read every output and to encode those again whose data are not what
            the manifest, or else their header, has the checksum of.

    Raises:
        OutputError: some were, and `conflict` is `refuse`; the message shows how they differ.
    """

    def look(item: Item) -> Task | ItemResult | _Conflicting:
        known = last.get(item.relative)
        if known is not None and _is_current(known, item, place, recipe, identity):
            if not verify or is_intact(place, known.output, known.data_sha256):
                return known
            return Task(item)
        found = layout.find(item)
        if found is None or (verify and not is_intact(place, found.output, found.data_sha256)):
            return Task(item)
        now = {**recipe.recorded(item, identity), WEIGHTS: identity.model_sha256}
        differs = difference(found.options, now)
        if not differs:
            return Task(item, made_of=found.source_sha256)
        return _Conflicting(item, found, differs)

    with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="wfvae-look") as pool:
        looks = list(pool.map(look, items))
    conflicts = [each for each in looks if isinstance(each, _Conflicting)]
    if conflicts and conflict == "refuse":
        raise OutputError(_refusal(conflicts, place))
    redone = [] if conflict == "keep" else [Task(each.item) for each in conflicts]
    kept = conflicts if conflict == "keep" else []
    return Plan(
        tasks=[each for each in looks if isinstance(each, Task)] + redone,
        done=[each for each in looks if isinstance(each, ItemResult)],
        kept=[_skipped(each) for each in kept],
    )


def _is_current(
    known: ItemResult,
    item: Item,
    place: OutputStore,
    recipe: EncodeConfig,
    identity: ModelFingerprint,
) -> bool:
    """Whether the manifest's word, the output's size and the source's stamp say so."""
    if known.status != "done" or known.output is None or known.bytes is None:
        return False
    if known.fingerprint != recipe.fingerprint(item, identity):
        return False
    try:
        return known.stamp == stamp(item.path) and known.bytes == place.size(known.output)
    except InputError:
        return False


def is_intact(place: OutputStore, output: str | None, recorded: str | None) -> bool:
    """Whether an output's data are those that were written, as far as anybody recorded it.

    Args:
        place: the output folder.
        output: the file's name in it.
        recorded: the checksum that the manifest has of the data; None where it has none.
    """
    assert output is not None, "only what is done has an output"
    try:
        with place.open_output(output) as file:
            header = read_header(file)
            expected = recorded or header.metadata.get(CHECKSUM)
            digest = Digest()
            while piece := file.read(_PIECE_BYTES):
                digest.write(piece)
            intact = expected is None or digest.hexdigest() == expected
    except (InputError, OSError):
        intact = False
    if not intact:
        _log.warning("%s in %s: damaged, encoding it again", output, place.name)
    return intact


def _refusal(conflicts: Sequence[_Conflicting], place: OutputStore) -> str:
    by_difference: dict[str, list[str]] = {}
    for each in conflicts:
        by_difference.setdefault(each.difference, []).append(each.found.output)
    lines = [
        f"{text} ({len(outputs)} files, such as {outputs[0]})"
        for text, outputs in list(by_difference.items())[:_EXAMPLES]
    ]
    return (
        f"{place.name}: {len(conflicts)} outputs are complete and were made otherwise: "
        + "; ".join(lines)
        + ". Add --overwrite to encode these again, --keep to leave them, or choose another -o"
    )


def _skipped(conflicting: _Conflicting) -> ItemResult:
    item, found = conflicting.item, conflicting.found
    return ItemResult(
        item.relative,
        item.path,
        "skipped",
        output=found.output,
        frames=found.frames,
        shape=found.shape,
        error=f"kept, made otherwise: {conflicting.difference}",
        kind="other options",
        bytes=found.bytes,
    )
