"""One increasing time for every frame, whatever timestamps the container gave."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("wfvae")


class Clock:
    """Gives frames their times, in the stream's time base.

    Good timestamps pass unchanged. A stream whose first frame has no presentation time is
    timed by its decoding times (AVI), or by its frame rate where it has none either. Of the
    odd ones, a time that is missing or repeats the one before (some files give every frame the
    same) comes one frame after the last; one that goes back is set to one unit after the last,
    and where it jumps back by more than a second (joined recordings) all that follow are moved
    on with it.
    """

    def __init__(self, step: int, name: str, second: int) -> None:
        """Start a clip.

        Args:
            step: nominal duration of a frame, in units.
            name: of the file, for warnings.
            second: units in one second.
        """
        self.step = step
        self._name = name
        self._second = second
        self._last: int | None = None
        self._given: int | None = None
        self._shift = 0
        self._by_decoding_time = False
        self._warned = False

    def __call__(self, pts: int | None, dts: int | None) -> int:
        """The time of the next frame, given its presentation and decoding times."""
        if self._last is None:
            self._by_decoding_time = pts is None
        given = dts if self._by_decoding_time else pts
        if self._last is None:
            self._last = given or 0
        elif given is None:
            self._last += self.step
        elif given == self._given:
            self._last += self.step
            self._warn()
        else:
            time = given + self._shift
            if self._last - time > self._second:
                self._shift += self._last + self.step - time
                time = self._last + self.step
                self._warn()
            elif time <= self._last:
                time = self._last + 1
                self._warn()
            self._last = time
        self._given = given
        return self._last

    def _warn(self) -> None:
        if not self._warned:
            _LOG.warning("%s: its timestamps do not always increase; corrected", self._name)
        self._warned = True
