"""Fetches as processes of their own: several at once, locks, signals, kills."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from solvers.common.files import WriterLock

Place = Any  # of conftest.py


@contextlib.contextmanager
def started(place: Place, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Yield the command as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(place.script), *place.arguments(*words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_processes_that_fetch_the_same(place: Place) -> None:
    place.add(files={"burgers1d_train.h5": os.urandom(3_000_000)})
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(place)) for _ in range(3)]
        ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0, 0], ends
    assert sum(output.endswith("fetched\n") for (output, _), _ in ends) == 1
    assert len(place.content()) == 1


def test_a_lock_is_waited_for_and_a_dead_holder_is_none(place: Place) -> None:
    entry = place.add()
    (place.cache / entry.sha256).mkdir(parents=True)
    (place.cache / f".{entry.sha256}.lock").touch()  # left by a killed process
    lock = WriterLock(place.cache / entry.sha256)
    with started(place) as process:
        assert process.stderr is not None
        assert "another process is working on it" in process.stderr.readline()
        lock.release()
        output, _ = process.communicate(timeout=30)
    assert output.endswith("fetched\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_fetch(place: Place, number: signal.Signals) -> None:
    entry = place.add()
    (place.cache / entry.sha256).mkdir(parents=True)
    lock = WriterLock(place.cache / entry.sha256)
    with started(place) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    lock.release()
    assert process.returncode == 128 + number
    assert errors == "stopped; the same command continues\n"


def test_a_fetch_that_is_killed_at_any_time(place: Place, run: Callable[..., str]) -> None:
    place.add(files={"burgers1d_train.h5": os.urandom(20_000_000), "burgers1d_val.h5": b"val"})
    for delay in (0.15, 0.2, 0.25, 0.3, 0.4):
        with started(place) as process:
            time.sleep(delay)
            process.kill()
        assert set(place.content()) <= {"burgers1d_train.h5", "burgers1d_val.h5"}
        assert len(place.content().get("burgers1d_train.h5", bytes(20_000_000))) == 20_000_000
    run()
    assert len(place.content()) == 2
    assert run().endswith("up to date\n")


class Silent(BaseHTTPRequestHandler):
    """A web server that knows a file's size and never sends it."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.send_header("Accept-Ranges", "none")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.asked.set()  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        time.sleep(30)

    def log_message(self, *words: object) -> None:
        """Says nothing."""


def test_a_signal_ends_a_download_that_hangs(place: Place) -> None:
    pytest.importorskip("aiohttp")
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads, server.block_on_close, server.asked = True, False, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        entry = place.add(artifact=f"http://127.0.0.1:{server.server_port}/x.tar.gz")
        place.register(replace(entry, size=100_000))
        with started(place) as process:
            assert server.asked.wait(20)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=15)
        server.shutdown()
    assert process.returncode == 143
    assert "stopped; the same command continues" in errors.splitlines()
