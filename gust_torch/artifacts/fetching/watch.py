"""What the long copies of a fetch share: progress, how they are stopped, and errors that name a file."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


class Stopped(Exception):
    """Another thread asked to stop."""


def _ignore(size: int) -> None:
    """Take no notice."""


@dataclass(frozen=True)
class Watch:
    """How a long copy reports and is stopped, from any thread.

    Attributes:
        progress: Called with the number of bytes done since the last call.
        stop: Set to end the work soon.
    """

    progress: Callable[[int], None] = _ignore
    stop: threading.Event = field(default_factory=threading.Event)

    def count(self, size: int) -> None:
        """Note `size` more bytes.

        Raises:
            Stopped: The work is to end.
        """
        self.check()
        self.progress(size)

    def check(self) -> None:
        """End the work where that was asked for.

        Raises:
            Stopped: The work is to end.
        """
        if self.stop.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: The work is to end.
        """
        self.stop.wait(seconds)
        self.check()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors of an open file ("No space left on device") its name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
