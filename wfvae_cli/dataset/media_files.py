"""Videos and images as outputs: named after their inputs, known by the manifest.

They have no header of ours, so that the manifest's line says what made them: options, weights, and
the hashes of the input and of the file itself. Between the moment that a file gets its name and
that line, a journal says the same, so that a run that is killed there resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from typing_extensions import override

from wfvae_cli.atomic import reported
from wfvae_cli.dataset.config import WEIGHTS, Config, ModelFingerprint
from wfvae_cli.dataset.items import SUFFIXES, Item
from wfvae_cli.dataset.outputs import Existing, Outputs
from wfvae_cli.dataset.plan import Conflict, Plan, plan_run
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import Source, content_sha256, stamp
from wfvae_cli.dataset.store import OutputStore, refuse_links
from wfvae_cli.errors import InputError, OutputError, UsageError
from wfvae_cli.local_path import local_path
from wfvae_cli.media.options import VideoOptions

_JOURNAL = ".wfvae-journal"
_LATENTS = ".safetensors"
_VIDEOS = (".mp4", ".m4v", ".mkv", ".mov", ".webm")
"""Suffixes that outputs keep; others are written as MP4."""
_CONTAINERS = {"matroska": ".mkv", "mpegts": ".ts", "yuv4mpegpipe": ".y4m"}
_CODECS = {"ffv1": ".mkv", "utvideo": ".mkv", "prores": ".mov"}
"""Containers of codecs that MP4 does not hold."""


def media_name(relative: str, video: VideoOptions, *, is_image: bool) -> str:
    """Name the output of an item: `a/x.mp4.safetensors` becomes `a/x.mp4`, images `.png`.

    Args:
        relative: name of the item.
        video: codec and container, which may ask for another suffix.
        is_image: whether the item is one.
    """
    name = relative.removesuffix(_LATENTS)
    suffix = PurePosixPath(name).suffix.lower()
    if is_image:
        return name if suffix == ".png" else f"{name}.png"
    if video.container is not None:
        wanted = _CONTAINERS.get(video.container, f".{video.container}")
    else:
        wanted = _CODECS.get(video.codec or "", suffix if suffix in _VIDEOS else ".mp4")
    return name if suffix == wanted else name + wanted


class MediaFiles(Outputs):
    """Videos and images in folders that mirror the inputs'.

    Args:
        store: where they go.
        how: what decides their bytes.
        video: codec and container.
    """

    def __init__(self, store: OutputStore, how: Config, video: VideoOptions) -> None:
        super().__init__(store, how)
        self.video = video
        self._journal = store.root / _JOURNAL / store.run

    def name(self, item: Item, *, is_image: bool) -> str:
        """Name an item's output."""
        return media_name(item.relative, self.video, is_image=is_image)

    @override
    def check(self, items: Iterable[Item]) -> None:
        """Refuse outputs that have one name, or the name of an input.

        Raises:
            InputError: two items would have one output.
            OutputError: an output would replace an input.
            UsageError: the store is no file system.
        """
        if self.store.url is not None:
            raise UsageError(
                f"{self.store.url}: videos and images are written to a file system: mount the "
                "store, or write to a folder and copy it"
            )
        items, seen = list(items), dict[str, Item]()
        inputs = {
            os.path.realpath(local_path(item.path))
            for item in items
            if not item.is_url or item.path.startswith("file://")
        }
        for item in items:
            for name in self._names(item):
                if os.path.realpath(self.store.root / name) in inputs:
                    raise OutputError(
                        f"{self.store.root / name} would replace an input: choose another -o"
                    )
            name = self._names(item)[0]
            other = seen.setdefault(name, item)
            if other != item:
                raise InputError(
                    f"{item.path} and {other.path} would both become {name!r}: rename one, or "
                    "give them ids in a manifest"
                )

    def _names(self, item: Item) -> list[str]:
        """Return both names, the likely one first: an item must be opened to tell images."""
        suffix = PurePosixPath(item.relative.removesuffix(_LATENTS)).suffix.lower()
        is_image = suffix in SUFFIXES["image"]
        return [self.name(item, is_image=each) for each in (is_image, not is_image)]

    @override
    def find(self, item: Item, known: ItemResult | None = None) -> Existing | None:
        """Look for an item's file, and for what the manifest knows of it."""
        if known is not None and known.status == "done" and known.output is not None:
            path = self.store.root / known.output
            if not path.exists():
                return None
            return self._existing(path, known)
        for name in self._names(item):
            path = self.store.root / name
            if path.exists():
                return Existing(name, None, "", None, None, path.stat().st_size)
        return None

    def _existing(self, path: Path, known: ItemResult) -> Existing:
        """Trust what the manifest says of a file, if that has not changed since."""
        assert known.output is not None
        is_same = path.stat().st_size == known.bytes and _sha256(path) == known.sha256
        return Existing(
            output=known.output,
            options=known.options if is_same else None,
            source_sha256=known.source_sha256 or "",
            frames=known.frames,
            shape=known.shape,
            bytes=path.stat().st_size,
            kept={
                "options": known.options,
                "source_sha256": known.source_sha256,
                "sha256": known.sha256,
                "metrics": known.metrics,
            },
        )

    @override
    def is_intact(self, output: ItemResult | Existing) -> bool:
        """Compare a file with the hash that its line has; `find` has compared an `Existing`."""
        if isinstance(output, Existing):
            return True
        assert output.output is not None, "only what is done has an output"
        with contextlib.suppress(InputError, OSError):
            return _sha256(self.store.root / output.output) == output.sha256
        return False

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
        """Take in the journal of a run that was killed, and find out what is left to do."""
        self.store.prepare()
        refuse_links(self._journal)
        left = {result.item: result for result in self._read_journal()}
        plan = plan_run(items, {**last, **left}, self, model, conflict, verify=verify)
        return replace(plan, unrecorded=list(left.values()))

    @override
    def settle(self, result: ItemResult) -> Iterator[ItemResult]:
        """Take a finished item; its journal goes once its line is written."""
        yield result
        self._journal_of(result.item).unlink(missing_ok=True)

    @override
    def close(self) -> None:
        self.store.tidy()
        for folder in (self._journal, self._journal.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def publish(self, part: Path, name: str, result: ItemResult) -> ItemResult:
        """Rename a complete file to its name.

        Args:
            part: the file.
            name: what it is to be called.
            result: of the item, without what is known here: see `described`.

        Raises:
            OutputError: it cannot be renamed.
        """
        result = replace(result, output=name, bytes=part.stat().st_size, sha256=_sha256(part))
        journal = self._journal_of(result.item)
        with reported(journal):
            journal.parent.mkdir(parents=True, exist_ok=True)
            journal.write_text(json.dumps(result.to_json()))
        self.store.publish(part, name)
        return result

    def described(
        self, item: Item, frames: int, file: Source, model: ModelFingerprint
    ) -> ItemResult:
        """Make the result of an item, with what the manifest is to know of its making."""
        return ItemResult(
            item.relative,
            item.path,
            "done",
            frames=frames,
            stamp=file.stamp,
            fingerprint=self.how.fingerprint(item, model),
            options={**self.how.recorded(item, model), WEIGHTS: model.model_sha256},
            source_sha256=file.sha256,
        )

    def _journal_of(self, item: str) -> Path:
        digest = hashlib.sha256(item.encode("utf-8", "surrogateescape")).hexdigest()
        return self._journal / f"{digest[:32]}.json"

    def _read_journal(self) -> Iterator[ItemResult]:
        """Yield the items whose file got its name, and whose line was not written."""
        for path in sorted(self._journal.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                result = ItemResult.from_json(json.loads(path.read_bytes()))
                target = self.store.root / (result.output or "")
                if target.is_file() and _sha256(target) == result.sha256:
                    yield result
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    return content_sha256(str(path), stamp(str(path)))
