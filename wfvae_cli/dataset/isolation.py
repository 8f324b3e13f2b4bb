"""Runs that survive the end of their process: a decoder that crashes, the OOM killer.

`isolate` forks. The child does the work and notes which items it has open; the parent does nothing
but wait. Where a child is killed, the parent forks another one, which first tries the items that
were open one by one: one that ends the process again has failed, and the others are done.

The parent is forked before PyTorch is imported, so it costs some 20 ms and 30 MB. Linux only: other
systems do not survive a fork of a process with frameworks loaded, or have none.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wfvae_cli.errors import CrashError

if TYPE_CHECKING:
    from wfvae_cli.dataset.result import ItemResult, Task

_MOST_CRASHES = 3
"""Crashes that an item may be open in, alone or not, before it counts as their cause."""
_SI_KERNEL = 0x80
"""`si_code` of a signal from the terminal, which has reached the child, too."""
_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Isolation:
    """Crashes before this run, and the journal of the items that it has open.

    The default is a run without a supervising process.
    """

    journal: int | None = None
    """File descriptor that the open items are written to."""
    suspects: frozenset[str] = frozenset()
    """Items to be tried alone: they were open when the process ended."""
    crashed: frozenset[str] = frozenset()
    """Items that have failed."""
    ended_by: str = ""
    """The signal that ended the process last."""
    _open: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_retry(self) -> bool:
        """True where the process has crashed before."""
        return bool(self.suspects or self.crashed)

    def sort(self, tasks: Sequence[Task]) -> tuple[list[ItemResult], list[Task], list[Task]]:
        """Sort tasks into those that have failed, those to be tried alone, and all others."""
        failed = [task for task in tasks if task.item.relative in self.crashed]
        alone = [task for task in tasks if task.item.relative in self.suspects]
        rest = [task for task in tasks if task.item.relative not in self.suspects | self.crashed]
        return [self._failure(task) for task in failed], alone, rest

    def begin(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Record every task in the journal as it is taken. From any thread."""
        for task in tasks:
            self._note(task.item.relative, is_open=True)
            yield task

    def end(self, result: ItemResult) -> None:
        """Record in the journal that an item is settled."""
        self._note(result.item, is_open=False)

    def _note(self, item: str, *, is_open: bool) -> None:
        if self.journal is None:
            return
        with self._lock:
            (self._open.add if is_open else self._open.discard)(item)
            write_journal(self.journal, self._open)

    def _failure(self, task: Task) -> ItemResult:
        from wfvae_cli.dataset.result import failure

        how = f" ({self.ended_by})" if self.ended_by else ""
        error = CrashError(
            f"{task.item.path}: reading it ends the process{how}: a decoder crashes on it, or it "
            "takes all memory; convert it with another program, or leave it out with --exclude"
        )
        return failure(task.item, error)


def write_journal(journal: int, items: Iterable[str]) -> None:
    """Replace what a journal holds, in one write, so that a crash leaves it old or new."""
    text = json.dumps(sorted(items)).encode()
    os.pwrite(journal, len(text).to_bytes(8, "big") + text, 0)


def read_journal(journal: int) -> list[str]:
    """Read what was written last."""
    size = int.from_bytes(os.pread(journal, 8, 0), "big")
    return list(json.loads(os.pread(journal, size, 8))) if size else []


def isolate() -> Isolation:
    """Go on in a child process; this one waits for it, and ends with its exit code.

    Call it before threads are started and PyTorch is imported.

    Returns:
        In the child, what it has to know.
    """
    if sys.platform != "linux":
        return Isolation()
    sys.stdout.flush()
    sys.stderr.flush()
    journal = os.memfd_create("wfvae-open-items")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_FORWARDED, signal.SIGCHLD))
    crashes: Counter[str] = Counter()
    isolation = Isolation(journal)
    while True:
        parent = os.getpid()
        child = os.fork()
        if not child:
            _die_with(parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return isolation
        status = _wait(child)
        if not os.WIFSIGNALED(status):
            os._exit(os.waitstatus_to_exitcode(status))
        isolation = _after_crash(isolation, crashes, read_journal(journal), os.WTERMSIG(status))


def _after_crash(
    before: Isolation, crashes: Counter[str], opened: Sequence[str], number: int
) -> Isolation:
    """Decide what the next child has to know; end where a crash has no file to blame."""
    name = signal.Signals(number).name
    if not opened:
        _say(f"error: the process ended by {name} with no file open: please report this\n")
        os._exit(1)
    crashes.update(opened)
    was_alone = len(opened) == 1 and opened[0] in before.suspects
    culprits = {item for item in opened if was_alone or crashes[item] >= _MOST_CRASHES}
    rest = set(opened) - culprits
    _say(
        f"note: the process ended by {name} with {len(opened)} files open: "
        + ("this one has failed\n" if was_alone else "trying these one by one\n")
    )
    assert before.journal is not None
    write_journal(before.journal, ())
    return Isolation(
        before.journal,
        (before.suspects | rest) - culprits,
        before.crashed | culprits,
        name,
    )


def _wait(child: int) -> int:
    """Wait for a child's end, passing on the signals that ask this process to end."""
    while True:
        got = signal.sigwaitinfo((*_FORWARDED, signal.SIGCHLD))
        if got.si_signo != signal.SIGCHLD:
            if got.si_code != _SI_KERNEL:
                os.kill(child, got.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is killed: nobody else would end it."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed or full: only the message is lost
        os.write(sys.stderr.fileno(), text.encode())
