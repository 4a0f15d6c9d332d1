"""A progress bar for transfers that take long enough to watch."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

_WORTH_A_BAR = 64 * 2**20  # bytes


class Bar(Protocol):
    """What a transfer tells its bar."""

    def update(self, n: int) -> object:
        """Count n more bytes."""


class _NoBar:
    """Shows nothing."""

    def update(self, n: int) -> None:
        """Count nothing."""


@contextlib.contextmanager
def transfer_bar(size: int, text: str) -> Iterator[Bar]:
    """Yield a bar on standard error for a transfer of `size` bytes; none for small ones or without a
    terminal."""
    if size < _WORTH_A_BAR or not sys.stderr.isatty():
        yield _NoBar()
        return
    from tqdm import tqdm

    with tqdm(total=size, desc=text, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as bar:
        yield bar
