"""Ctrl-C and its like as an exception that neither breaks what it meets nor gets lost.

Python raises `KeyboardInterrupt` wherever the program happens to be. Two places cannot take that:
an import, where C++ code of PyTorch's ends the whole process, and a callback that nobody called
(a weak reference's, a finalizer, FFmpeg's), where the exception is printed and forgotten.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SOON = 0.02
"""Seconds until a signal that could not be raised is tried again."""

_PATIENCE = 20.0
"""Seconds that an import may hold a signal back, unless another one comes."""


class Stopped(BaseException):
    """A signal asks the program to end.

    No `KeyboardInterrupt`, which Typer turns into an exit code of its own.

    Attributes:
        number: which signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def stop_behind(error: BaseException | None) -> BaseException | None:
    """The signal that made an error, if one did.

    Some context managers fail when a signal interrupts their own entering or leaving, PyTorch's
    `with torch.device` for one.
    """
    while error is not None and not isinstance(error, (Stopped, KeyboardInterrupt)):
        error = error.__cause__ or error.__context__
    return error


def ending(stop: BaseException) -> tuple[str, int]:
    """A word for how the program ends, and its exit code: 128 and the signal's number."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    return "interrupted" if number == signal.SIGINT else "terminated", 128 + number


def raise_signals() -> None:
    """Raise `Stopped` in the main thread where a signal asks the program to end.

    Signals that the program was started to ignore (by `nohup`, or in the background) stay ignored.
    Windows, which has no alarms, keeps Python's own way.
    """
    if sys.platform == "win32":
        return
    raiser = _Raiser()
    for number in _heeded():
        signal.signal(number, raiser.take)
    signal.signal(signal.SIGALRM, raiser.try_again)
    sys.unraisablehook = raiser.recover


def leave_at_signals(leave: Callable[[], None]) -> None:
    """Call `leave` where a signal comes from here on: the command is done, and nothing to undo."""
    if sys.platform == "win32":
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in _heeded():
        signal.signal(number, lambda number, frame: leave())


def _heeded() -> list[signal.Signals]:
    # Ctrl-C, what a batch system sends before it kills, a terminal or connection that closed.
    stopping = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    return [number for number in stopping if signal.getsignal(number) is not signal.SIG_IGN]


class _Raiser:
    """Raises the signal that came, now or when it can be raised."""

    def __init__(self) -> None:
        self._number = 0
        self._deadline = 0.0

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal that asks the program to end."""
        self._note(number, 0.0 if self._number else _PATIENCE)
        self._raise(frame)

    def try_again(self, alarm: int, frame: FrameType | None) -> None:
        """Handle the alarm for a signal that could not be raised."""
        del alarm
        self._raise(frame)

    def recover(self, lost: UnraisableHookArgs) -> None:
        """Try again with what was raised in a callback; what else is lost there is printed."""
        if isinstance(lost.exc_value, Stopped):
            self._note(lost.exc_value.number, _PATIENCE)
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        else:
            sys.__unraisablehook__(lost)

    def _note(self, number: int, patience: float) -> None:
        self._number, self._deadline = number, time.monotonic() + patience

    def _raise(self, frame: FrameType | None) -> None:
        if _is_importing(frame) and time.monotonic() < self._deadline:
            signal.setitimer(signal.ITIMER_REAL, _SOON)
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        number, self._number = self._number, 0
        if number:  # else another alarm came before this one was over
            raise Stopped(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
