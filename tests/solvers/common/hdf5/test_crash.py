"""SIGKILL and SIGSTOP at any moment: the file opens and every flushed frame is there, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (plain h5py.File can read lz4 then)
import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, validate

PATTERNS = 16

# Appends as fast as it can, or once for each line it is sent, and reports the number of committed frames.
WRITER = """
import sys
import numpy as np
from solvers.common.hdf5_utils import HDF5Writer

path, keep, side, compression, paced = (
    sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] or None, sys.argv[5] == "paced")
metadata = {"solver": "test", "boundary_x": "periodic", "boundary_y": "periodic", "grid_y": "uniform",
            "package_version": "0", "git_commit": "unknown"}
fields = [np.random.default_rng(n).standard_normal((side, side)).astype(np.float32) for n in range(PATTERNS)]
axis = np.arange(side)
if keep >= 0:
    writer = HDF5Writer.resume(path, num_samples=keep)
else:
    writer = HDF5Writer(path, fields={"omega": (side, side), "velocity": (side, side, 2)}, scalars=["energy"],
                        coordinates={"x": axis, "y": axis}, metadata=metadata, compression=compression)
while True:
    n = writer.num_samples
    frame = fields[n % PATTERNS]
    writer.append({"omega": frame, "velocity": np.stack([frame, -frame], -1)}, time=0.5 * n,
                  scalars={"energy": 2.0 * n})
    print(writer.num_samples, flush=True)
    if paced:
        sys.stdin.readline()
""".replace("PATTERNS", str(PATTERNS))


class Writer:
    """The appending process and what it reported."""

    def __init__(self, path: Path, *, keep: int, side: int, compression: str, paced: bool) -> None:
        arguments = [str(path), str(keep), str(side), compression, "paced" if paced else "fast"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reported = max(keep, 0)
        self.read_reports(1)

    def read_reports(self, count: int) -> None:
        """Wait for `count` more reports."""
        assert self.process.stdout is not None
        for _ in range(count):
            self.reported = int(self.process.stdout.readline())

    def release(self, count: int) -> None:
        """Let a paced writer append `count` more frames."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n" * count)
        self.process.stdin.flush()

    def kill(self) -> int:
        """SIGKILL; returns the last count reported."""
        self.process.kill()
        rest = self.process.communicate()[0].splitlines()
        if rest and rest[-1].isdigit():
            self.reported = int(rest[-1])
        return self.reported


@contextmanager
def _started(
    path: Path, *, keep: int = -1, side: int, compression: str = "", paced: bool = False
) -> Iterator[Writer]:
    writer = Writer(path, keep=keep, side=side, compression=compression, paced=paced)
    try:
        yield writer
    finally:
        writer.process.kill()
        writer.process.wait()


def _check(file: h5py.File, flushed: int, side: int) -> int:
    """Compare every committed frame with what was written; returns their number."""
    count = num_samples(file)
    assert count >= flushed
    patterns = [
        np.random.default_rng(n).standard_normal((side, side)).astype(np.float32) for n in range(PATTERNS)
    ]
    expected = np.stack([patterns[n % PATTERNS] for n in range(count)])
    np.testing.assert_array_equal(file["fields/omega"][:count], expected)
    np.testing.assert_array_equal(file["fields/velocity"][:count, :, :, 1], -expected)
    np.testing.assert_array_equal(file["coordinates/time"][:count], 0.5 * np.arange(count))
    np.testing.assert_array_equal(file["scalars/energy"][:count], 2.0 * np.arange(count))
    assert file["metadata"].attrs["solver"] == "test"
    return count


@pytest.mark.parametrize(("side", "compression"), [(8, ""), (64, "lz4")])
def test_a_killed_writer_leaves_every_flushed_frame(tmp_path: Path, side: int, compression: str) -> None:
    path = tmp_path / "data.h5"
    rng = random.Random(side)
    keep = -1
    for _ in range(3):
        with _started(path, keep=keep, side=side, compression=compression) as writer:
            time.sleep(0.1 * rng.random())
            flushed = writer.kill()
        with h5py.File(path, "r") as file:
            _check(file, flushed, side)
        with open_file(path) as file:
            count = _check(file, flushed, side)
            assert file["metadata"].attrs["complete"] == np.bool_(False)
        assert validate(path) == []
        keep = rng.choice([count, flushed, flushed // 2])


# Resumes, appends and closes without end; reports the frames that are safe before each of these.
CYCLES = """
import sys
import numpy as np
from solvers.common.hdf5_utils import HDF5Writer

path, n = sys.argv[1], int(sys.argv[2])
cycle = 0
while True:
    keep = max(1, n - 2 * (cycle % 3))
    print(keep, flush=True)
    writer = HDF5Writer.resume(path, num_samples=keep)
    for n in range(keep, keep + 3):
        frame = np.random.default_rng(n % PATTERNS).standard_normal((8, 8)).astype(np.float32)
        writer.append({"omega": frame, "velocity": np.stack([frame, -frame], -1)}, time=0.5 * n,
                      scalars={"energy": 2.0 * n})
    n += 1
    print(n, flush=True)
    writer.close(complete=cycle % 2 == 0)
    cycle += 1
""".replace("PATTERNS", str(PATTERNS))


def test_kills_while_a_run_is_resumed_or_closed_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    rng = random.Random(1)
    with _started(path, side=8, paced=True) as writer:
        count = writer.kill()
    for _ in range(4):
        command = [sys.executable, "-c", CYCLES, str(path), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            reports = process.stdout.readline()
            time.sleep(0.03 * rng.random())
            process.kill()
            reports += process.communicate()[0]
        with open_file(path) as file:
            count = _check(file, int(reports.splitlines()[-1]), 8)
        assert validate(path) == []


def test_a_stopped_writer_leaves_a_readable_file_at_any_instant(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    rng = random.Random(0)
    with _started(path, side=64) as writer:
        for _ in range(8):
            time.sleep(0.02 * rng.random())
            writer.process.send_signal(signal.SIGSTOP)
            os.waitpid(writer.process.pid, os.WUNTRACED)
            with h5py.File(path, "r") as file:
                _check(file, writer.reported, 64)
            with open_file(path) as file:
                _check(file, writer.reported, 64)
            writer.process.send_signal(signal.SIGCONT)
            writer.read_reports(1)


def test_readers_follow_a_writer_at_work(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with _started(path, side=64, paced=True) as writer:
        for _ in range(6):
            writer.release(20)
            with open_file(path) as file:
                _check(file, writer.reported, 64)
                writer.read_reports(20)
                # A handle that is held open sees new frames after refreshing.
                file["coordinates/time"].refresh()
                assert len(file["coordinates/time"]) >= writer.reported
            writer.release(20)
            assert validate(path) == []
            writer.read_reports(20)


def test_a_finished_run_that_goes_on_is_unfinished_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with _started(path, side=8, paced=True) as writer:
        writer.kill()
    HDF5Writer.resume(path, num_samples=1).close(complete=True)
    with _started(path, keep=1, side=8, paced=True) as writer:
        flushed = writer.kill()
    with h5py.File(path, "r") as file:
        assert _check(file, flushed, 8) == 2
        assert file["metadata"].attrs["complete"] == np.bool_(False)


def test_a_writer_killed_before_its_first_frame_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with _started(path, side=8) as writer:
        flushed = writer.kill()
    code = f"""
import os, signal
import numpy as np
from solvers.common.hdf5_utils import HDF5Writer
HDF5Writer({str(path)!r}, fields={{"a": (4, 4)}}, coordinates={{"x": np.arange(4), "y": np.arange(4)}},
           metadata={{}}, overwrite=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    with h5py.File(path, "r") as file:
        _check(file, flushed, 8)
