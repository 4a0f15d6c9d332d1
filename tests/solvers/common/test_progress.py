"""Progress on a terminal and in a pipe; signals."""

import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress

import pytest

from solvers.common.progress import Interrupt, Progress


class Clock:
    """A clock that tests set; tqdm's own is replaced by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def test_a_pipe_gets_a_line_each_interval_and_a_last_one(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(1000, description="turbulence", stream=stream, interval=10.0) as progress:
        for _ in range(5):
            clock.now += 5.0
            progress.update(100, {"energy": 0.51234, "CFL": 0.02})
    assert stream.getvalue().splitlines() == [
        "turbulence: 200/1000 steps (20.0 %), 20.00 steps/s, ETA 00:40, energy 0.5123, CFL 0.02",
        "turbulence: 400/1000 steps (40.0 %), 20.00 steps/s, ETA 00:30, energy 0.5123, CFL 0.02",
        "turbulence: 500/1000 steps (50.0 %), 20.00 steps/s, ETA 00:25, energy 0.5123, CFL 0.02",
    ]


def test_a_resumed_run_counts_from_where_it_was(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(100_000, unit="frame", initial=50_000, stream=stream) as progress:
        clock.now = 10.0
        progress.update(100)
    assert stream.getvalue() == "50100/100000 frames (50.1 %), 10.00 frames/s, ETA 1:23:10\n"


def test_nothing_done_has_no_eta() -> None:
    stream = io.StringIO()
    Progress(10, stream=stream).close()
    assert stream.getvalue() == "0/10 steps (0.0 %), ? steps/s, ETA ?\n"


@pytest.mark.parametrize("columns", [0, 120])
def test_a_terminal_gets_a_bar_with_eta_rate_and_diagnostics(columns: int) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with open(follower, "w") as stream, Progress(100, description="run", stream=stream) as progress:
        progress.update(50, {"energy": 0.25})
        progress.update(50)
    shown = ""
    with suppress(OSError):  # what reading a closed terminal ends with
        while data := os.read(leader, 1 << 16):
            shown += data.decode()
    os.close(leader)
    assert "run" in shown
    assert "100/100" in shown
    assert "steps/s" in shown
    assert "energy 0.25" in shown
    assert "\r" in shown


def test_log_lines_stand_above_the_bar() -> None:
    """Each at the start of a line that the bar has left."""
    code = (
        "import logging\nfrom solvers.common.progress import Progress\n"
        "logging.basicConfig(level='INFO', format='%(message)s')\n"
        "with Progress(2, description='run') as progress:\n"
        "    progress.update()\n    logging.info('a message')\n    progress.update()\n"
    )
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True)
    os.close(follower)
    shown = ""
    with suppress(OSError):
        while data := os.read(leader, 1 << 16):
            shown += data.decode()
    os.close(leader)
    before, after = shown.split("a message")
    assert before.endswith("\r")
    assert not before.rpartition("\r")[0].rpartition("\r")[2].strip()  # wiped
    assert after.startswith("\r\n")
    assert "2/2" in after


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_noted_and_handlers_return(number: signal.Signals, code: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with Interrupt() as interrupt:
        assert interrupt.signal is None
        assert interrupt.exit_code == 0
        os.kill(os.getpid(), number)
        assert interrupt.signal is number
        assert interrupt.exit_code == code
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_sigint_interrupts_at_once() -> None:
    # Jobs in the background of a shell ignore SIGINT, so python's own handler need not be there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_sigterm_ends_the_process() -> None:
    code = (
        "import os, signal\nfrom solvers.common.progress import Interrupt\n"
        "with Interrupt():\n    os.kill(os.getpid(), 15)\n    print('saved', flush=True)\n"
        "    os.kill(os.getpid(), 15)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "saved\n"
    assert result.returncode == -signal.SIGTERM


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
    assert signal.getsignal(signal.SIGTERM) == before
