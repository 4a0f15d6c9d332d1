"""SIGTERM and SIGINT of a training: it stops at a whole step and saves, or at once where nothing is lost."""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from subprocess import Popen
from types import FrameType
from typing import Any


class Signals:
    """Notes the first SIGTERM or SIGINT while a training can stop by itself; any other ends the program.

    A context manager that restores the handlers. Imports neither torch nor Lightning, whose import takes long
    enough to be interrupted.

    Attributes:
        number: The signal that was noted, None before.
        ask: Asks the training to stop at its next whole step; None where there is no training to wait for.
        children: Gives processes that end with this one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.ask: Callable[[], None] | None = None
        self.children: Callable[[], Iterable[Popen[bytes]]] = tuple
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked loader: its owner ends it
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.number is None and self.ask is not None:
            self.number = number
            self.ask()
            return
        words = "stopped before the first step" if self.number is None else "stopped at once"
        os.write(2, f"{words}; the same command starts or continues\n".encode())
        for process in self.children():
            process.kill()
        # An exception may be lost in a finalizer, or wait for a collective that never comes.
        os._exit(128 + number)
