"""The interface of all kinds of outputs: their names, finding them, and completing them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wfvae_cli.dataset.config import Config, ModelFingerprint
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import InputError
from wfvae_cli.latents.file import CHECKSUM
from wfvae_cli.latents.header import read_header
from wfvae_cli.latents.raw import Digest

if TYPE_CHECKING:
    from wfvae_cli.dataset.plan import Conflict, Plan

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Existing:
    """An output that is complete, and what is known of its making."""

    output: str
    options: Mapping[str, str] | None
    """Every option that decided its bytes, and the weights' hash; None where nothing says what
    made it, or it was changed since."""
    source_sha256: str
    frames: int | None
    shape: tuple[int, ...] | None
    bytes: int
    data_sha256: str | None = None
    """Checksum of the data, where a header has it."""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the manifest's line, to be kept."""
    is_window: bool = False
    """True where a clip was looked for, and one window of it has its name."""


class Outputs(ABC):
    """The outputs of one run: what names and finds them, and completes them.

    Args:
        store: where they go.
        how: what decides their bytes.
    """

    def __init__(self, store: OutputStore, how: Config) -> None:
        self.store, self.how = store, how

    def check(self, items: Iterable[Item]) -> None:
        """Refuse items whose outputs would have one name.

        Raises:
            InputError: there are some.
            UsageError: outputs of this kind cannot go there.
        """
        del items

    @abstractmethod
    def find(self, item: Item, known: ItemResult | None = None) -> Existing | None:
        """Look for the complete output of an item; None where there is none, or a damaged one.

        Args:
            item: which one.
            known: what the manifest says of it.
        """

    def is_intact(self, output: ItemResult | Existing) -> bool:
        """Compare the data of an output with the checksum that its line or header has.

        Args:
            output: one that is complete; without any checksum it counts as intact.
        """
        assert output.output is not None, "only what is done has an output"
        try:
            with self.store.open_output(output.output) as file:
                header = read_header(file)
                expected = output.data_sha256 or header.metadata.get(CHECKSUM)
                digest = Digest()
                while piece := file.read(_PIECE_BYTES):
                    digest.write(piece)
        except (InputError, OSError):
            return False
        return expected is None or digest.hexdigest() == expected

    def begin(
        self,
        items: Sequence[Item],
        last: Mapping[str, ItemResult],
        model: ModelFingerprint,
        conflict: Conflict,
        *,
        verify: bool = False,
    ) -> Plan:
        """Make room for outputs, and find out what is left to do.

        Args:
            items: all of the run.
            last: what counts of the manifest, by item.
            model: which model is to work now.
            conflict: what to do with outputs that were made with different options.
            verify: whether to read all outputs, and make those again that are damaged.

        Raises:
            OutputError: there are such outputs, and `conflict` is `refuse`.
        """
        from wfvae_cli.dataset.plan import plan_run

        self.store.prepare()
        return plan_run(items, last, self, model, conflict, verify=verify)

    def settle(self, result: ItemResult) -> Iterator[ItemResult]:
        """Take a finished item; give those whose outputs are in place now."""
        yield result

    def flush(self) -> Iterator[ItemResult]:
        """Wait for outputs that are being put in place, and give their items."""
        return iter(())

    def close(self) -> None:
        """Remove what is not complete."""
        self.store.tidy()


def parse_options(strings: Mapping[str, str]) -> dict[str, str]:
    """Read the options that a header records; nothing where they are missing or garbled."""
    try:
        values = json.loads(strings.get("options", "{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in values.items()} if isinstance(values, dict) else {}
