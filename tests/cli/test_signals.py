"""Signals that come where Python cannot raise them: in imports, and in callbacks without a caller.

Each case is a process of its own, which sends itself the signal at a known place.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

_BEGIN = """
import os, signal, sys, time
from wfvae_cli.cli import signals
NUMBER = {number}
signal.signal(NUMBER, signal.{before})
def come():
    os.kill(os.getpid(), NUMBER)
    time.sleep(0.05)
signals.raise_signals()
"""

# Up to Python 3.11, what is raised while a class is made is wrapped in a RuntimeError.
_SLOW = """
import __main__
class Attribute:
    def __set_name__(self, owner, name):
        __main__.come()
class Made:
    attribute = Attribute()
print("imported")
"""


def _run(tmp_path: Path, number: signal.Signals, body: str, *, before: str = "SIG_DFL") -> str:
    """What a program printed that was started with the signal's handler `before`.

    The modules that it imports are `tmp_path`'s.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _BEGIN.format(number=int(number), before=before) + body],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer
    assert answer.stderr == ""
    return answer.stdout


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_raised_where_it_comes(tmp_path: Path, number: signal.Signals) -> None:
    printed = _run(
        tmp_path,
        number,
        """
try:
    come()
    print("went on")
except signals.Stopped as stop:
    print(*signals.ending(stop))
""",
    )
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert printed == f"{word} {128 + number}\n"


@pytest.mark.parametrize("number", STOPPING)
def test_an_import_is_not_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(_SLOW)
    printed = _run(
        tmp_path,
        number,
        """
try:
    import slow
    while True:
        time.sleep(1)
except signals.Stopped as stop:
    print(stop.number)
""",
    )
    assert printed == f"imported\n{int(number)}\n"


@pytest.mark.parametrize(("signals", "patience"), [(1, 0.2), (2, 60)])
def test_a_long_import_is_interrupted_after_a_while_or_by_a_second_signal(
    tmp_path: Path, signals: int, patience: float
) -> None:
    (tmp_path / "long.py").write_text(
        f"import __main__, time\nfor _ in range({signals}): __main__.come()\n"
        "time.sleep(30)\nprint('imported')"
    )
    printed = _run(
        tmp_path,
        signal.SIGTERM,
        f"signals._PATIENCE = {patience}"
        """
try:
    import long
except signals.Stopped as stop:
    print(stop.number)
""",
    )
    assert printed == f"{int(signal.SIGTERM)}\n"


def test_a_signal_lost_in_a_finalizer_comes_again(tmp_path: Path) -> None:
    printed = _run(
        tmp_path,
        signal.SIGTERM,
        """
class Thing:
    def __del__(self):
        come()
        print("not here")
try:
    Thing()
    while True:
        time.sleep(1)
except signals.Stopped as stop:
    print(stop.number)
""",
    )
    assert printed == f"{int(signal.SIGTERM)}\n"


def test_other_errors_in_finalizers_are_printed_as_ever(tmp_path: Path) -> None:
    code = """
from wfvae_cli.cli import signals
signals.raise_signals()
class Thing:
    def __del__(self):
        raise ValueError("of the thing")
Thing()
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert answer.returncode == 0
    assert "ValueError: of the thing" in answer.stderr


def test_a_signal_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    printed = _run(
        tmp_path,
        signal.SIGHUP,
        "come(); signals.leave_at_signals(sys.exit); come(); print('went on')",
        before="SIG_IGN",
    )
    assert printed == "went on\n"


@pytest.mark.parametrize("number", STOPPING)
def test_what_comes_when_all_is_done_changes_no_exit_code(
    tmp_path: Path, number: signal.Signals
) -> None:
    printed = _run(
        tmp_path,
        number,
        """
import functools
print("done", flush=True)
signals.leave_at_signals(functools.partial(os._exit, 0))
come()
print("not here")
""",
    )
    assert printed == "done\n"
