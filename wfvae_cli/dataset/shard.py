"""Shares of a dataset, decided by names alone: disjoint, complete, without communication."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Share `index` (from 0) of `count`, for Slurm arrays and Kubernetes indexed jobs."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Refuse a share that does not exist."""
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"expected a shard I/N with I from 0 to N - 1, got {self.index}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`.

        Raises:
            UsageError: it is something else.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise UsageError(f"expected a shard I/N such as 0/8, got {text!r}")
        return cls(int(index), int(count))

    def takes(self, item: Item) -> bool:
        """Return True where this share holds an item.

        The hash of its name decides, so that a file added to the dataset moves no other one.
        """
        digest = hashlib.sha256(item.relative.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index

    def of(self, items: Iterable[Item]) -> list[Item]:
        """The items that this share holds, in their order."""
        return [item for item in items if self.takes(item)]

    @property
    def suffix(self) -> str:
        """Suffix of the names of its files, so that no two shares write one file."""
        return "" if self.count == 1 else f"-{self.index:05d}-of-{self.count:05d}"
