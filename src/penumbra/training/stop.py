"""Being asked to stop: a signal or a deadline, heard between two steps."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from penumbra.errors import Stopped

TIME_IS_UP = 75
"""Exit code for "try again" (``EX_TEMPFAIL`` of sysexits.h): a batch system may requeue on it."""


@dataclass
class Wishes:
    """What was asked for so far."""

    deadline: float | None
    signals: list[int] = field(default_factory=list)

    def code(self) -> int:
        """The exit code to stop with; 0 to go on."""
        if self.signals:
            return 128 + self.signals[0]
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return TIME_IS_UP if late else 0


@contextmanager
def wishes(deadline: float | None) -> Iterator[Wishes]:
    """SIGINT and SIGTERM let the step finish and be saved; a second SIGINT does not wait."""
    heard = Wishes(deadline)

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in heard.signals:
            raise KeyboardInterrupt
        heard.signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def agreed(own: int, total: int) -> int:
    """The exit code of a process, given the sum of all processes' codes."""
    if own or not total:
        return own
    return TIME_IS_UP if total % TIME_IS_UP == 0 else 128 + signal.SIGTERM


def stopped(stage: str, step: int, steps: int, code: int) -> Stopped:
    """The farewell of a stage that was asked to stop."""
    why = "time is up" if code == TIME_IS_UP else f"{signal.Signals(code - 128).name} received"
    return Stopped(
        f"{stage}: {why}; saved after step {step} of {steps}, the same command continues", code
    )
