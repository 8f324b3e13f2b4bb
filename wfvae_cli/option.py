"""Command-line form of a field of an options dataclass, declared beside the field.

    @dataclass(frozen=True)
    class Sampling:
        start: Annotated[float, Option("Skip the beginning.", metavar="SECONDS")] = 0.0

The library works with the dataclass; `cli.params` makes the option from it. Modules with such
dataclasses load neither torch nor av, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option such as `--short-side PIXELS`; its name is the field's unless `flags` say more.

    Args:
        help: what it does, for `--help`.
        panel: the group that `--help` lists it in.
        flags: its spellings, such as `("--output", "-o")`; default: `--` and the field's name.
        metavar: what stands for its value.
        parse: makes the field's value of the text given; raises ValueError with what was expected.
        least: the smallest number that is taken.
        most: the largest.
        common: whether `-h`, which shows the usual options only, lists it.
        hidden: whether no help lists it: old spellings.
        complete: the values that a shell completes.
    """

    help: str
    panel: str | None = None
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    least: float | None = None
    most: float | None = None
    common: bool = False
    hidden: bool = False
    complete: Callable[[], Iterable[str]] | None = None


@dataclass(frozen=True)
class Argument:
    """A positional argument, such as `INPUT`."""

    metavar: str
    help: str
