"""One process at a time for one thing; the others wait, and a dead holder's lock is free at once."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from gust_torch.artifacts.fetching.watch import Watch
from solvers.common.files import WriterLock

_POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


@contextlib.contextmanager
def waiting_lock(output: Path, watch: Watch) -> Iterator[None]:
    """Hold the lock of `output`, whose folder exists; it is released by the system when this process dies.

    Raises:
        Stopped: The work is to end while another process has the lock.
    """
    told = False
    while True:
        try:
            lock = WriterLock(output)
            break
        except BlockingIOError:
            if not told:
                log.warning("%s: another process is working on it, waiting for that one", output)
                told = True
            watch.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
