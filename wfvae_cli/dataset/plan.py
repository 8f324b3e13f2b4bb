"""The plan of a run: items to work on, and those whose outputs are up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from wfvae_cli.dataset.config import WEIGHTS, ModelFingerprint, difference
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.outputs import Existing, Outputs
from wfvae_cli.dataset.result import SKIPPED, ItemResult, Task
from wfvae_cli.dataset.source import stamp
from wfvae_cli.dataset.windows import Window
from wfvae_cli.errors import InputError, OutputError

_log = logging.getLogger("wfvae")

Conflict = Literal["refuse", "overwrite", "keep"]
"""Treatment of a complete output that was made with other options or weights."""

_LOOKERS = 16
"""Threads that look at outputs: on a network file system each look takes a while."""
_EXAMPLES = 3


@dataclass(frozen=True)
class Plan:
    """All items, sorted by what is to be done with them."""

    tasks: Sequence[Task]
    """Tasks to work on, in order."""
    done: Sequence[ItemResult]
    """Results of the items that are up to date."""
    kept: Sequence[ItemResult]
    """Items that were made with different options, and are left as they are."""
    unrecorded: Sequence[ItemResult] = ()
    """Results in `done` that the manifest lacks, since a run was killed before writing them."""

    def revisited(self, items: Iterable[Item]) -> Plan:
        """Plan to work on the items that are up to date, too."""
        by_name = {item.relative: item for item in items}
        again = [Task(by_name[r.item], r.source_sha256, r) for r in self.done]
        return replace(self, tasks=[*self.tasks, *again], done=[])


@dataclass(frozen=True)
class _Conflicting:
    item: Item
    found: Existing
    replaces: tuple[str, ...]
    """Outputs that making it again replaces."""
    difference: str


def plan_run(
    items: Iterable[Item],
    last: Mapping[str, ItemResult],
    outputs: Outputs,
    model: ModelFingerprint,
    conflict: Conflict,
    *,
    verify: bool = False,
) -> Plan:
    """Sort items by what is to be done with them.

    An output is up to date if it is complete, its weights and options are these, and its source
    has not changed: by size and time where the manifest knows these of the source, else by the
    hash of its content, which is left to the worker that would work on it.

    Args:
        items: all of the dataset.
        last: what counts of the manifest, by item.
        outputs: what knows which are there, and how they are to be made now.
        model: which model is to work now.
        conflict: what to do with outputs that were made with different options.
        verify: whether to read every output, and to make those again whose data are not what the
            manifest, or else their header, has the checksum of.

    Raises:
        OutputError: some were, and `conflict` is `refuse`; the message shows how they differ.
    """

    def is_intact(output: ItemResult | Existing) -> bool:
        if not verify or outputs.is_intact(output):
            return True
        _log.warning("%s in %s: damaged, making it again", output.output, outputs.store.name)
        return False

    def are_intact(known: ItemResult) -> bool:
        if known.windows is None:
            return is_intact(known)
        parts = [replace(known, output=w.output, windows=None) for w in known.windows]
        damaged = [part for part in parts if not is_intact(part)]
        for part in damaged:  # the worker makes what is missing
            outputs.store.remove(part.output or "")
        return not damaged

    def look(item: Item) -> Task | ItemResult | _Conflicting:
        known = last.get(item.relative)
        if known is not None and _is_current(known, item, outputs, model):
            return known if are_intact(known) else Task(item)
        if known is not None and _is_skipped(known, item, outputs, model):
            return known
        found, windows = None, None if known is None else known.windows
        if windows:
            # The worker that opens the clip checks its other windows.
            first = Window(windows[0].start, windows[0].frames)
            found = outputs.find(item.part(first), known)
        if found is None:
            found = outputs.find(item, known)
        if found is None or not is_intact(found):
            return Task(item)
        replaces = tuple(known.outputs) if known is not None else (found.output,)
        if found.options is None:
            return _Conflicting(item, found, replaces, "not what the manifest knows")
        now = {**outputs.how.recorded(item, model), WEIGHTS: model.model_sha256}
        differs = difference(found.options, now)
        if not differs and (windows is not None or found.is_window):
            return Task(item)
        if not differs:
            return Task(item, found.source_sha256, _found(item, found, outputs, model))
        return _Conflicting(item, found, replaces, differs)

    with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="wfvae-look") as pool:
        looks = list(pool.map(look, items))
    conflicts = [each for each in looks if isinstance(each, _Conflicting)]
    if conflicts and conflict == "refuse":
        raise OutputError(_refusal(conflicts, outputs.store.name))
    redone = [] if conflict == "keep" else [_again(each) for each in conflicts]
    kept = conflicts if conflict == "keep" else []
    known = [each for each in looks if isinstance(each, ItemResult)]
    return Plan(
        tasks=[each for each in looks if isinstance(each, Task)] + redone,
        done=[each for each in known if each.status == "done"],
        kept=[_skipped(each) for each in kept] + [e for e in known if e.status == "skipped"],
    )


def _again(conflicting: _Conflicting) -> Task:
    return Task(conflicting.item, replaces=conflicting.replaces)


def _is_skipped(known: ItemResult, item: Item, outputs: Outputs, model: ModelFingerprint) -> bool:
    """Return True where a clip was found to fit no bucket or window, and neither has changed."""
    if known.kind != SKIPPED or known.fingerprint != outputs.how.fingerprint(item, model):
        return False
    try:
        return known.stamp == stamp(item.path)
    except InputError:
        return False


def _is_current(known: ItemResult, item: Item, outputs: Outputs, model: ModelFingerprint) -> bool:
    """Return True where the manifest, the output's size and the source's stamp still agree."""
    if known.status != "done" or not known.outputs:
        return False
    if known.fingerprint != outputs.how.fingerprint(item, model):
        return False
    try:
        return known.stamp == stamp(item.path) and all(
            size is not None and size == outputs.store.size(name)
            for name, size in known.outputs.items()
        )
    except InputError:
        return False


def _found(item: Item, found: Existing, outputs: Outputs, model: ModelFingerprint) -> ItemResult:
    """Make the result of an item whose output is there, and whose source may have changed."""
    return ItemResult(
        item.relative,
        item.path,
        "done",
        output=found.output,
        frames=found.frames,
        shape=None if found.shape is None else tuple(found.shape),
        bytes=found.bytes,
        fingerprint=outputs.how.fingerprint(item, model),
        data_sha256=found.data_sha256,
        caption=item.caption,
        columns=item.columns or None,
        **found.kept,
    )


def _refusal(conflicts: Sequence[_Conflicting], folder: str) -> str:
    by_difference: dict[str, list[str]] = {}
    for each in conflicts:
        by_difference.setdefault(each.difference, []).append(each.found.output)
    lines = [
        f"{text} ({len(outputs)} files, such as {outputs[0]})"
        for text, outputs in list(by_difference.items())[:_EXAMPLES]
    ]
    return (
        f"{folder}: {len(conflicts)} outputs are complete and were made with different options: "
        + "; ".join(lines)
        + ". Add --overwrite to make these again, --keep to leave them, or choose another -o"
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
        error=f"kept, made with different options: {conflicting.difference}",
        kind="other options",
        bytes=found.bytes,
    )
