"""Header strings and what they stand for: every refusal names its field."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeVar

from wfvae_cli.errors import LatentError

_INTEGER = re.compile(r"[0-9]{1,19}")
_FRACTION = re.compile(r"(-?[0-9]{1,19})/([0-9]{1,19})")
LARGEST_TERM = 10**19 - 1
"""The largest numerator or denominator that is read back."""

_Choice = TypeVar("_Choice", bound="str | int")


def clean_text(text: str, *, keep_controls: bool = False) -> str:
    """Replace what cannot be stored or safely printed: lone surrogates, control characters.

    File names may hold both: undecodable bytes become surrogates in Python, and a control
    character in a name would reach the terminal when the file is inspected.
    """
    unwanted = {"Cs"} if keep_controls else {"Cs", "Cc"}
    return "".join("�" if unicodedata.category(char) in unwanted else char for char in text)


def require(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise a LatentError about the field `name` unless `holds`."""
    if not holds:
        raise LatentError(f"latent metadata: {name!r} should be {expected}, got {got!s}")


def format_value(value: str | int | bool | Fraction) -> str:
    """Write a value as `Strings` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return clean_text(str(value))


class Strings:
    """Typed access to a header's strings."""

    def __init__(self, strings: Mapping[str, str]) -> None:
        self._strings = strings

    def text(self, name: str) -> str:
        """A string that must be there, free of control characters."""
        text = self._strings.get(name)
        if text is None:
            raise LatentError(
                f"latent metadata: {name!r} is missing; the file was changed by another tool, or "
                "is not ours: encode the source again"
            )
        require(clean_text(text) == text, name, "free of control characters", repr(text[:80]))
        return text

    def integer(self, name: str, least: int = 0) -> int:
        """A decimal integer of at least `least`."""
        text = self.text(name)
        valid = bool(_INTEGER.fullmatch(text)) and int(text) >= least
        require(valid, name, f"an integer of at least {least}", repr(text[:80]))
        return int(text)

    def fraction(self, name: str) -> Fraction:
        """A fraction such as `30000/1001`."""
        text = self.text(name)
        match = _FRACTION.fullmatch(text)
        if match is None or int(match[2]) == 0:
            raise LatentError(
                f"latent metadata: {name!r} should be a fraction such as '30000/1001', "
                f"got {text[:80]!r}"
            )
        return Fraction(int(match[1]), int(match[2]))

    def choice(self, name: str, choices: tuple[_Choice, ...]) -> _Choice:
        """One of `choices`, by its string."""
        text = self.text(name)
        for choice in choices:
            if text == str(choice):
                return choice
        raise LatentError(
            f"latent metadata: {name!r} should be one of {', '.join(map(str, choices))}, "
            f"got {text[:80]!r}"
        )

    def numbers(self, name: str) -> tuple[float, ...]:
        """A JSON list of numbers; NaN and infinity are left to the caller."""
        text = self.text(name)
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
            raise LatentError(
                f"latent metadata: {name!r} should be a list of numbers, got {text[:80]!r}"
            )
        try:
            return tuple(float(value) for value in values)
        except OverflowError:
            raise LatentError(f"latent metadata: {name!r} holds a number out of range") from None
