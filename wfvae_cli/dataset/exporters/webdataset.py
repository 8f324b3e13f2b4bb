"""Tar shards for the webdataset library (https://github.com/webdataset/webdataset).

A clip is two members of one key: `KEY.safetensors`, its latent file, and `KEY.json`, the
header's strings and the item's name. Clips are encoded into a hidden folder first; when all of a
group of them are there or have failed, the group is written as one or more shards of bounded size
and, last, an index `NAME.json` that says what they hold. A group without its index is made again
from the clips, so that shards appear whole, and a run that is continued writes the same ones.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from wfvae_cli.atomic import reported, sync_file
from wfvae_cli.dataset.config import WEIGHTS, EncodeConfig, ModelFingerprint, difference
from wfvae_cli.dataset.exporters.base import Exporter, Written
from wfvae_cli.dataset.exporters.files import SUFFIX, LatentFiles
from wfvae_cli.dataset.exporters.shard_index import ShardIndex, names_of, read_index
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.outputs import Existing
from wfvae_cli.dataset.plan import Conflict, Plan, plan_run
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import content_sha256, stamp
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import InputError, LatentError, MissingExtraError, OutputError, UsageError
from wfvae_cli.latents.header import read_header
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.pipeline.encode import LatentOutput
from wfvae_cli.pipeline.options import EncodeOptions

_log = logging.getLogger("wfvae")

_CLIPS = ".wfvae-clips"
"""Folder in which clips wait for the others of their tar shard."""
_MTIME = 0.0
_WHOLE = Item("", "")
"""Item without a part of its own: an index records the options that all items share."""


@dataclass
class _Group:
    number: int
    items: Sequence[Item]
    results: dict[str, ItemResult]

    @property
    def is_complete(self) -> bool:
        return len(self.results) == len(self.items)


class TarShards(Exporter):
    """The shards of one run.

    Raises:
        MissingExtraError: webdataset is not installed.
    """

    def __init__(self, store: OutputStore, how: EncodeConfig) -> None:
        super().__init__(store, how)
        try:
            import webdataset  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("webdataset", "webdataset", "--format webdataset") from error
        self._clips = replace(store, root=store.root / _CLIPS / store.run)
        self._files = LatentFiles(self._clips, how)
        self._root, self._prefix = store.root, f"latents{store.run.removeprefix('run')}-"
        self._form = how.tar
        self._groups: dict[str, _Group] = {}
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="wfvae-pack")
        self._packing: list[Future[list[ItemResult]]] = []
        self._current: list[ItemResult] = []
        self._kept: list[ItemResult] = []

    @override
    def check(self, items: Iterable[Item]) -> None:
        """Refuse stores that are no file system."""
        if self.store.url is not None:
            raise UsageError(
                f"{self.store.url}: tar shards are written to a file system: mount the store, or "
                "write to a folder and copy it"
            )
        super().check(items)

    @override
    def find(self, item: Item, known: ItemResult | None = None) -> Existing | None:
        """Look for an item that waits for the others of its group."""
        return self._files.find(item)

    @override
    def open(
        self, item: Item, metadata: LatentMetadata, options: EncodeOptions
    ) -> LatentOutput[Written]:
        """Begin an item's latent file, which waits for the others of its group."""
        return self._files.open(item, metadata, options)

    @override
    def begin(
        self,
        items: Sequence[Item],
        last: Mapping[str, ItemResult],
        model: ModelFingerprint,
        conflict: Conflict,
        *,
        verify: bool = False,
    ) -> Plan:
        """Find out which items are in no finished shard, and group these.

        Items that failed when their group was finished are tried again, in groups of their own
        behind the others, so that they change no other shard.
        """
        self._clips.prepare()
        self._model = model
        todo = self._group(items, conflict, verify=verify)
        # Clips that wait for their group have no line yet, and are known by their headers.
        plan = plan_run(todo, {}, self._files, model, "overwrite", verify=verify)
        unrecorded = [result for result in self._current if not _is_recorded(result, last)]
        return replace(plan, done=self._current, kept=self._kept, unrecorded=unrecorded)

    @override
    def settle(self, result: ItemResult) -> Iterator[ItemResult]:
        """Record the result of a clip; the last one of a group has it packed in a thread."""
        if result.status != "done":
            yield result
        group = self._groups[result.item]
        group.results[result.item] = result
        if group.is_complete:
            self._packing.append(self._packer.submit(self._pack, group))
        yield from self._packed()

    @override
    def flush(self) -> Iterator[ItemResult]:
        """Wait for the last shards."""
        return self._packed(wait=True)

    @override
    def close(self) -> None:
        """Let the shard that is being written be finished, and write no other."""
        self._packer.shutdown(wait=True, cancel_futures=True)
        self._clips.tidy()
        remove_empty(self._root / _CLIPS)

    def _packed(self, *, wait: bool = False) -> Iterator[ItemResult]:
        """Yield the clips whose shards have been written since the last call.

        Raises:
            OutputError: they could not be.
        """
        while self._packing and (wait or self._packing[0].done()):
            for result in self._packing.pop(0).result():
                if result.status == "done":
                    yield result

    def _group(self, items: Sequence[Item], conflict: Conflict, *, verify: bool) -> list[Item]:
        by_name = {item.relative: item for item in items}
        numbers, failed = set(), set[str]()
        for index in self._indices():
            if not index.is_whole or not self._is_wanted(index, by_name, conflict):
                continue
            if verify and not self._is_intact(index):
                continue
            numbers.add(self._number(index.path))
            kept = {result.item for result in self._kept}
            for result in index.results:
                item = by_name.get(result.item)
                if result.status == "failed" or self._may_fit_now(result, item):
                    failed.add(result.item)
                elif by_name.pop(result.item, None) and result.item not in kept:
                    (self._kept if result.status == "skipped" else self._current).append(result)
        self._drop_packed()
        fresh = [item for name, item in by_name.items() if name not in failed]
        again = [item for name, item in by_name.items() if name in failed]
        number = 0
        for part in (fresh, again):
            for begin in range(0, len(part), self._form.clips):
                while number in numbers:
                    number += 1
                group = _Group(number, part[begin : begin + self._form.clips], {})
                self._groups.update((item.relative, group) for item in group.items)
                number += 1
        return fresh + again

    def _drop_packed(self) -> None:
        """Remove clips that are in finished shards: the run was killed before it could."""
        packed = {name for result in self._current for name in names_of(result)}
        for path in self._clips.root.rglob(f"*{SUFFIX}"):
            name = path.relative_to(self._clips.root).as_posix().removesuffix(SUFFIX)
            if name in packed:
                path.unlink(missing_ok=True)

    def _indices(self) -> Iterator[ShardIndex]:
        for path in sorted(self._root.glob(f"{self._prefix}*.json")):
            if self._number(path) is not None:
                index = read_index(path)
                if index is not None:
                    yield index

    def _number(self, path: Path) -> int | None:
        digits = path.name.removeprefix(self._prefix).removesuffix(".json")
        return int(digits) if len(digits) == 6 and digits.isdecimal() else None

    def _is_wanted(self, index: ShardIndex, items: Mapping[str, Item], conflict: Conflict) -> bool:
        """Return True where a finished group may stay as it is."""
        if not any(result.item in items for result in index.results):
            return True  # its sources are gone: nothing is deleted unasked
        recorded = self.how.recorded(_WHOLE, self._model)
        differs = difference(index.options, {**recorded, WEIGHTS: self._model.model_sha256})
        if differs and conflict == "refuse":
            raise OutputError(
                f"{index.path}: these shards are complete and were made with different options: "
                f"{differs}. Add "
                "--overwrite to make them again, --keep to leave them, or choose another -o"
            )
        if differs and conflict == "keep":
            self._kept += [
                replace(o, status="skipped", error=f"kept, made with different options: {differs}")
                for o in index.results
                if o.item in items and o.status == "done"
            ]
            return True
        return not differs and all(
            self._is_same(result, index.sources.get(result.item, ""), items[result.item])
            for result in index.results
            if result.status == "done" and result.item in items
        )

    def _is_same(self, result: ItemResult, sha256: str, item: Item) -> bool:
        try:
            if result.fingerprint != self.how.fingerprint(item, self._model):
                return False
            marked = stamp(item.path)
            if result.stamp == marked:
                return True
            return not item.is_url and content_sha256(item.path, marked) == sha256
        except InputError:
            return True  # an unreadable source cannot be encoded again

    def _is_intact(self, index: ShardIndex) -> bool:
        """Return True where all clips of a group are in its shards, and match their checksums."""
        try:
            for name in index.tars:
                self.verify(index.path.parent / name)
        except LatentError as error:
            _log.warning("%s: encoding its clips again", error)
            return False
        return True

    def verify(self, shard: Path) -> None:
        """Check that a shard holds its clips, and that these match their checksums.

        Raises:
            LatentError: a clip is missing or damaged.
        """
        from wfvae_cli.dataset.training import verify_shard

        verify_shard(shard)

    def _may_fit_now(self, result: ItemResult, item: Item | None) -> bool:
        """Return True where a clip fitted no bucket or window, and has changed since."""
        if result.status != "skipped" or item is None:
            return False
        try:
            return result.stamp != stamp(item.path)
        except InputError:
            return True

    def _pack(self, group: _Group) -> list[ItemResult]:
        """Write the shards of a group, then its index, and remove its clips."""
        name = f"{self._prefix}{group.number:06d}"
        results = [group.results[item.relative] for item in group.items]
        done = [result for result in results if result.status == "done"]
        if not done:
            return results  # nothing to index: the next run tries them like new items
        tars, members, sources = self._write_tars(name, done)
        placed = [_placed(result, members) if result in done else result for result in results]
        target = self._root / f"{name}.json"
        before = read_index(target)
        recorded = self.how.recorded(_WHOLE, self._model)
        options = {**recorded, WEIGHTS: self._model.model_sha256}
        # Seconds differ from run to run, and an index should not.
        lasting = [replace(result, seconds=None) for result in placed]
        index = ShardIndex(target, tars, options, lasting, sources)
        part = self._clips.work / target.name
        with reported(target, part):
            part.write_bytes(index.encoded())
            sync_file(part)
        _publish(part, target)
        for old in () if before is None else before.tars.keys() - tars.keys():
            (self._root / old).unlink(missing_ok=True)  # what --overwrite replaced
        for result in done:
            for output in result.outputs:
                (self._clips.root / output).unlink(missing_ok=True)
        return placed

    def members(self, item: str, path: Path) -> dict[str, bytes]:
        """Return the members of a clip by their suffix, made of its latent file."""
        return {"safetensors": path.read_bytes(), **text_members({"item": item, **_strings(path)})}

    def _write_tars(
        self, name: str, done: Sequence[ItemResult]
    ) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
        """Write shards under their names.

        Returns:
            Bytes of each shard, the shard of each clip or window, and the source of each item.
        """
        from webdataset import ShardWriter

        members: dict[str, str] = {}
        sources: dict[str, str] = {}
        pattern = str(self._clips.work / name).replace("%", "%%") + "-%03d.tar"
        with (
            reported(self._root / name),
            ShardWriter(
                pattern,
                maxcount=self._form.clips,
                maxsize=self._form.max_bytes,
                verbose=0,
                mtime=_MTIME,
                format="PAX_FORMAT",
            ) as writer,
        ):
            for result in done:
                for name in names_of(result):
                    path = self._clips.root / (name + SUFFIX)
                    sources[result.item] = _strings(path).get("extra.source_sha256", "")
                    writer.write({"__key__": key_of(name), **self.members(name, path)})
                    members[name] = Path(str(writer.fname)).name
        tars = {}
        for part in sorted({*members.values()}):
            with reported(self._root / part):
                sync_file(self._clips.work / part)
            tars[part] = _publish(self._clips.work / part, self._root / part)
        return tars, members, sources


def _placed(result: ItemResult, members: Mapping[str, str]) -> ItemResult:
    """Replace the outputs of an item by the shards that hold it."""
    if result.windows is None:
        return replace(result, output=members[result.item])
    windows = zip(result.windows, names_of(result), strict=True)
    return replace(result, windows=tuple(replace(w, output=members[name]) for w, name in windows))


def _is_recorded(result: ItemResult, last: Mapping[str, ItemResult]) -> bool:
    """Return True where the manifest has a line of a result; a killed run may lack it."""
    known = last.get(result.item)
    return known is not None and (known.status, known.output) == (result.status, result.output)


def text_members(fields: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the members of a clip beside its latents: JSON, and its caption where it has one.

    Args:
        fields: the strings of the clip's header, and what else its JSON is to hold.
    """
    found, members = dict(fields), dict[str, bytes]()
    caption, columns = fields.get("extra.caption"), fields.get("extra.columns")
    if caption is not None:
        found["caption"] = caption
        members["txt"] = caption.encode()
    if columns is not None:
        found["columns"] = json.loads(columns)
    return {**members, "json": json.dumps(found).encode()}


def key_of(name: str) -> str:
    """An item's key in a shard: the library ends keys at the first dot of a file's name."""
    return name.replace("%", "%25").replace(".", "%2E")


def _strings(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return dict(read_header(file).metadata)


def _publish(part: Path, target: Path) -> int:
    with reported(target, part):
        part.replace(target)
        return target.stat().st_size


def remove_empty(folder: Path) -> None:
    """Remove a tree of folders as far as nothing is in them."""
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(path)  # noqa: PTH106 (of strings that os.walk gave)
        except OSError:
            continue
