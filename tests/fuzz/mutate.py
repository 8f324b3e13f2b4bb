"""Seeded damage to files: bytes that flip or move, and JSON that says something else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

HUGE = (2**31, 2**32, 2**63 - 1, 2**63, 10**30, -1, 0, 10**9, 10**18)
ODD: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "-1",
    "nan",
    "1e999",
    "999999999999999999",
    "2147483648/1",
    "1/9223372036854775807",
    "\0",
    "\ud800",
    "\u202e\x1b[2J",
    "../../victim",
    "/etc/passwd",
    "x" * 5000,
    [],
    [[]],
    {},
    {"a": 1},
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    *HUGE,
)


def damaged(data: bytes, random: Random) -> bytes:
    """Flip, cut, insert, repeat or blank some of the bytes."""
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(result) + 1)
        length = random.choice((1, 2, 8, 64, 512))
        match random.randrange(6):
            case 0:
                for place in range(at, min(at + random.choice((1, 4)), len(result))):
                    result[place] ^= 1 << random.randrange(8)
            case 1:
                del result[at:]
            case 2:
                del result[at : at + length]
            case 3:
                result[at:at] = random.randbytes(length)
            case 4:
                start = random.randrange(len(result) + 1)
                result[at:at] = result[start : start + length]
            case _:
                result[at : at + length] = bytes(min(length, len(result) - at))
    return bytes(result)


def changed(value: Any, random: Random) -> Any:
    """A JSON value with one of its parts replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    holder, key = _place(value, random)
    match random.randrange(5):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(("x", "../x", "\ud800", "x" * 300))] = holder.pop(key)
        case 1 | 0:
            holder.insert(key, copy.deepcopy(holder[key]))
        case 2 if isinstance(holder[key], str):
            holder[key] = damaged(holder[key].encode(errors="replace"), random).decode("latin-1")
        case _:
            holder[key] = random.choice(ODD)
    return value


def _place(value: Any, random: Random) -> tuple[Any, Any]:
    """A container within `value`, and one of its keys."""
    places = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)) and holder[key]:
                waiting.append(holder[key])
    return random.choice(places)


def changed_json(text: bytes, random: Random) -> bytes:
    """JSON that parses, mostly, and says something else; now and then nested beyond any stack."""
    if random.randrange(20) == 0:
        return random.choice((b"[", b'{"a":')) * 100_000
    return json.dumps(changed(json.loads(text), random)).encode()


def changed_header(data: bytes, random: Random) -> bytes:
    """A safetensors file whose header says something else, at its right length."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = changed_json(data[8:end], random)
    return len(text).to_bytes(8, "little") + text + data[end:]


def changed_line(data: bytes, random: Random) -> bytes:
    """JSON Lines of which one says something else."""
    lines = data.splitlines()
    at = random.randrange(len(lines))
    lines[at] = changed_json(lines[at], random)
    return b"\n".join(lines) + b"\n"


Mutation = Callable[[bytes, Random], bytes]
