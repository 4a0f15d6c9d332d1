"""Progress display of long runs, and their orderly stop on SIGTERM and SIGINT."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

DEFAULT_INTERVAL_SECONDS = 10.0
LINE = "{desc}{n_fmt}/{total_fmt}{unit} ({percentage:.1f} %), {rate_noinv_fmt}, ETA {remaining}{postfix}"


class Interrupt:
    """Notes the first SIGTERM or SIGINT so that a loop can save and stop; a second one acts as usual.

    A context manager; the handlers found on entry are restored on exit. Does nothing outside the main thread,
    to which python delivers all signals.

        with Interrupt() as interrupt:
            while not interrupt.signal: step()

    Attributes:
        signal: The signal that came, None before.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + signal number as shells have it (130 for SIGINT, 143 for SIGTERM); 0 when none came."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()


class Progress:
    """Progress of a run with a known number of steps: a bar with ETA on a terminal, plain lines elsewhere.

    A context manager; while it shows a bar, log lines are written above it.

    Args:
        total: Steps of the whole run.
        unit: What is counted, in the singular, or "MB".
        description: Shown in front.
        initial: Steps done before this start (a resumed run).
        stream: Where to write; standard error by default.
        interval: Seconds between lines when the stream is not a terminal.
    """

    def __init__(
        self,
        total: int,
        *,
        unit: str = "step",
        description: str = "",
        initial: int = 0,
        stream: TextIO | None = None,
        interval: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._shown: float = -1
        self._redirected = contextlib.ExitStack()
        options: dict[str, Any]
        if not self._on_terminal:  # tqdm draws nowhere, and says when a line is due
            options = {"mininterval": interval, "miniters": 1, "bar_format": LINE, "file": io.StringIO()}
        elif os.get_terminal_size(self._stream.fileno()).columns > 0:
            options = {"mininterval": 0.2, "dynamic_ncols": True, "file": self._stream}
        else:  # terminals of containers and editors may say that they are 0 wide, which tqdm takes literally
            options = {"mininterval": 0.2, "ncols": 80, "nrows": 24, "file": self._stream}
        self._bar = tqdm(
            total=total,
            initial=initial,
            unit=f" {unit}" if unit.isupper() else f" {unit}s",  # 3 steps, but 3 MB
            desc=f"{description}: " if description else None,
            **options,
        )

    def update(self, n: int = 1, values: Mapping[str, float] = {}) -> None:
        """Count `n` more steps and show `values` (diagnostics by name) beside them; keeps the last."""
        if values:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            self._bar.set_postfix_str(shown, refresh=False)
        if self._bar.update(n):
            self._print_line()

    def close(self) -> None:
        """Show the final state; a second call does nothing."""
        self._redirected.close()
        if self._shown != self._bar.n and not self._bar.disable:
            self._print_line()
        self._bar.close()

    def __enter__(self) -> "Progress":
        if self._on_terminal:
            self._redirected.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not self._on_terminal:
            self._bar.close()  # an error's line stands alone
        self.close()

    def _print_line(self) -> None:
        if not self._on_terminal:
            self._shown = self._bar.n
            print(str(self._bar).rstrip(", "), file=self._stream, flush=True)
