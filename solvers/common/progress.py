"""Progress display of long runs, and their orderly stop on SIGTERM and SIGINT."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any, TextIO

from tqdm import tqdm

DEFAULT_INTERVAL_SECONDS = 10.0
DEFAULT_COLUMNS = 80


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
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: remember the signal and let a second one act as if we had not been here."""
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()


class Progress:
    """Progress of a run with a known number of steps: a bar with ETA on a terminal, plain lines elsewhere.

    A context manager.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the display.

        Args:
            total: Steps of the whole run.
            unit: What is counted, in the singular, or "MB".
            description: Shown in front.
            initial: Steps done before this start (a resumed run).
            stream: Where to write; standard error by default.
            interval: Seconds between lines when the stream is not a terminal.
            clock: Seconds from some origin; replaced in tests.
        """
        self._total, self._description = total, description
        self._units = unit if unit.isupper() else f"{unit}s"  # 3 steps, but 3 MB
        self._stream = sys.stderr if stream is None else stream
        self._interval, self._clock = interval, clock
        self._initial = self._done = initial
        self._start = self._last_line = clock()
        self._shown: int | None = None
        self._values: Mapping[str, float] = {}
        self._bar: tqdm[Any] | None = None
        if self._stream.isatty():
            # Some terminals (of containers, of editors) say that they are 0 columns wide, which tqdm takes
            # literally.
            has_width = os.get_terminal_size(self._stream.fileno()).columns > 0
            self._bar = tqdm(
                total=total,
                initial=initial,
                unit=f" {self._units}",
                desc=description or None,
                file=self._stream,
                ncols=None if has_width else DEFAULT_COLUMNS,
                dynamic_ncols=has_width,
                mininterval=0.2,
            )

    def update(self, n: int = 1, values: Mapping[str, float] = {}) -> None:
        """Count `n` more steps and show `values` (diagnostics by name) beside them; keeps the last."""
        self._done += n
        self._values = values or self._values
        if self._bar is not None:
            if values:
                self._bar.set_postfix_str(_format(values, ", "), refresh=False)
            self._bar.update(n)
        elif self._clock() - self._last_line >= self._interval:
            self._line()

    def close(self) -> None:
        """Show the final state; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()
        elif self._shown != self._done:
            self._line()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or self._bar is not None:  # where plain lines go, an error's line stands alone
            self.close()

    def _line(self) -> None:
        """Write one plain line: "turbulence: 500/1000 steps (50.0 %), 250 steps/s, ETA 0:02, energy 0.5"."""
        now = self._clock()
        self._last_line, self._shown = now, self._done
        rate = (self._done - self._initial) / max(now - self._start, 1e-9)
        remaining = (self._total - self._done) / rate if rate > 0 else float("inf")
        head = f"{self._description}: " if self._description else ""
        percent = 100 * self._done / max(self._total, 1)
        parts = [
            f"{self._done}/{self._total} {self._units} ({percent:.1f} %)",
            f"{rate:.3g} {self._units}/s",
            f"ETA {_duration(remaining)}",
        ]
        if self._values:
            parts.append(_format(self._values, ", "))
        self._stream.write(head + ", ".join(parts) + "\n")
        self._stream.flush()


def _format(values: Mapping[str, float], separator: str) -> str:
    """Diagnostics as "energy 0.513, CFL 0.02"."""
    return separator.join(f"{name} {value:.4g}" for name, value in values.items())


def _duration(seconds: float) -> str:
    """Seconds as "1:02:03" or "2:03", "unknown" when not finite."""
    if not seconds < 1e9:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
