"""Downloads: ranges in parallel, continued after errors, full disks and kills."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gust_torch.artifacts.fetching import download as module
from gust_torch.artifacts.fetching import journal as download_journal
from gust_torch.artifacts.fetching.download import download, downloaded_bytes
from gust_torch.artifacts.fetching.watch import Stopped, Watch

RANGE = 1000
CONTENT = random.Random(0).randbytes(10 * RANGE + 17)


class FakeRemote:
    """A remote file in memory that notes what is read, and fails when told to.

    Attributes:
        spans: Ranges that were read, or (0, size) for a whole download.
        fail: Called with the number of the read, from 1; may raise.
    """

    name = "t.tar.gz"

    def __init__(self, content: bytes = CONTENT, *, ranges: bool = True) -> None:
        self.content, self.supports_ranges = content, ranges
        self.size: int | None = len(content)
        self.spans: list[tuple[int, int]] = []
        self.fail: Callable[[int], None] = lambda count: None

    def read_range(self, start: int, stop: int) -> bytes:
        self.spans.append((start, stop))
        self.fail(len(self.spans))
        return self.content[start:stop]

    def download(self, path: Path) -> None:
        self.spans.append((0, len(self.content)))
        path.write_bytes(self.content[:100])
        self.fail(len(self.spans))
        path.write_bytes(self.content)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(download_journal, "SAVE_SECONDS", 0.0)


def get(remote: FakeRemote, part: Path, workers: int = 3, watch: Watch | None = None) -> None:
    watch = Watch() if watch is None else watch
    digest = download(remote, part, len(CONTENT), workers=workers, watch=watch)
    assert digest == hashlib.sha256(part.read_bytes()).hexdigest()


def failing(*numbers: int, error: Exception | None = None) -> Callable[[int], None]:
    """Raise at these reads."""

    def fail(count: int) -> None:
        if count in numbers:
            raise error or ValueError("s3://b/t.tar.gz: cannot be reached") from TimeoutError()

    return fail


@pytest.mark.parametrize("workers", [1, 3, 32])
def test_ranges_in_parallel(tmp_path: Path, workers: int) -> None:
    remote, seen = FakeRemote(), []
    get(remote, tmp_path / "part", workers, Watch(seen.append))
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert len(remote.spans) == len(set(remote.spans)) == 11
    assert sum(seen) == len(CONTENT)


def test_all_threads_read_at_the_same_time(tmp_path: Path) -> None:
    remote, barrier = FakeRemote(CONTENT[: 3 * RANGE]), threading.Barrier(3, timeout=10)
    remote.fail = lambda count: barrier.wait() and None
    download(remote, tmp_path / "part", 3 * RANGE, workers=3, watch=Watch())
    assert (tmp_path / "part").read_bytes() == CONTENT[: 3 * RANGE]


def test_it_continues_with_the_missing_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    first, second = FakeRemote(), FakeRemote()
    first.fail = failing(5)
    with pytest.raises(ValueError, match="cannot be reached; the same command continues"):
        get(first, tmp_path / "part", workers=1)
    assert downloaded_bytes(tmp_path / "part", len(CONTENT)) == 4 * RANGE
    get(second, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert sorted(second.spans) == [(i * RANGE, min((i + 1) * RANGE, len(CONTENT))) for i in range(4, 11)]


def test_nothing_is_read_again_when_all_is_there(tmp_path: Path) -> None:
    get(FakeRemote(), tmp_path / "part")
    again = FakeRemote()
    get(again, tmp_path / "part")
    assert again.spans == []


@pytest.mark.parametrize("tail", ["1", "10", "x\n", "-1\n", "11\n", "999999999\n"])
def test_a_journal_with_a_bad_end_does_no_harm(
    tmp_path: Path, tail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    first = FakeRemote()
    first.fail = failing(4)
    with pytest.raises(ValueError, match="cannot be reached"):
        get(first, tmp_path / "part", workers=1)
    with (tmp_path / "part.ranges").open("a") as journal:
        journal.write(tail)
    second = FakeRemote()
    second.fail = failing(2)  # so that lines are appended behind the bad end
    with pytest.raises(ValueError, match="cannot be reached"):
        get(second, tmp_path / "part", workers=1)
    get(FakeRemote(), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


@pytest.mark.parametrize("spoil", ["resize", "remove part", "remove journal", "other ranges", "binary"])
def test_a_journal_of_another_file_counts_for_nothing(tmp_path: Path, spoil: str) -> None:
    part, journal = tmp_path / "part", tmp_path / "part.ranges"
    get(FakeRemote(bytes(len(CONTENT))), part)
    match spoil:
        case "resize":
            os.truncate(part, 5)
        case "remove part":
            part.unlink()
        case "remove journal":
            journal.unlink()
        case "other ranges":
            journal.write_text(journal.read_text().replace("1000", "999"))
        case "binary":
            journal.write_bytes(b"\xff\xfe\n0\n")
    get(FakeRemote(), part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_another_size_is_noticed_before_a_byte_moves(tmp_path: Path, ranges: bool) -> None:
    remote = FakeRemote(CONTENT + b"x", ranges=ranges)
    with pytest.raises(ValueError, match="10018 bytes in the store, the registry says 10017"):
        get(remote, tmp_path / "part")
    assert remote.spans == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_passing_trouble_is_survived(tmp_path: Path, ranges: bool) -> None:
    remote = FakeRemote(ranges=ranges)
    remote.fail = failing(1, 2)
    get(remote, tmp_path / "part", workers=1)
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert len(remote.spans) == (13 if ranges else 3)


@pytest.mark.parametrize("ranges", [True, False])
def test_delays_grow_and_end(tmp_path: Path, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    monkeypatch.setattr(Watch, "sleep", lambda self, seconds: delays.append(seconds))
    remote = FakeRemote(ranges=ranges)
    remote.fail = failing(*range(1, 99))
    with pytest.raises(ValueError, match="cannot be reached; the same command continues"):
        get(remote, tmp_path / "part", workers=1)
    assert delays == [0.001, 0.002, 0.004, 0.008]


@pytest.mark.parametrize("cause", [FileNotFoundError(), PermissionError()])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_cannot_get_better_is_not_repeated(tmp_path: Path, cause: Exception, ranges: bool) -> None:
    def fail(count: int) -> None:
        raise ValueError("s3://b/t.tar.gz: no such file; check the URL") from cause

    remote = FakeRemote(ranges=ranges)
    remote.fail = fail
    with pytest.raises(ValueError, match="no such file"):
        get(remote, tmp_path / "part", workers=1)
    assert len(remote.spans) == 1


def test_a_file_that_got_shorter(tmp_path: Path) -> None:
    remote = FakeRemote()
    remote.fail = lambda count: setattr(remote, "content", CONTENT[: 2 * RANGE]) if count == 2 else None
    with pytest.raises(ValueError, match="0 bytes came where 1000 were asked for"):
        get(remote, tmp_path / "part", workers=1)


def test_a_whole_download_that_breaks_off_is_repeated(tmp_path: Path) -> None:
    remote = FakeRemote(ranges=False)
    remote.fail = lambda count: setattr(remote, "content", CONTENT[:-5] if count < 3 else CONTENT)
    get(remote, tmp_path / "part")
    assert len(remote.spans) == 3
    remote.fail = lambda count: setattr(remote, "content", CONTENT[:-5])
    with pytest.raises(ValueError, match="10012 bytes came where 10017 were expected; the same command"):
        get(remote, tmp_path / "part")


def test_a_full_disk_keeps_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, count = os.pwrite, 0

    def full(file: int, data: bytes, position: int) -> int:
        nonlocal count
        count += 1
        if count == 4:
            return pwrite(file, data[:300], position)  # the last bytes that fit
        if count > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, data, position)

    remote = FakeRemote()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left") as caught:
            get(remote, tmp_path / "part", workers=1)
    assert caught.value.filename == str(tmp_path / "part")
    assert len(remote.spans) == 4  # a full disk is not tried again
    rest = FakeRemote()
    get(rest, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert len(rest.spans) == 8


def test_a_whole_download_starts_again(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"half of something")
    remote = FakeRemote(ranges=False)
    remote.size = None
    get(remote, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_stop_ends_all_threads(tmp_path: Path) -> None:
    remote, stop = FakeRemote(), threading.Event()
    remote.fail = lambda count: stop.set() if count == 3 else None
    with pytest.raises(Stopped):
        get(remote, tmp_path / "part", 1, Watch(stop=stop))
    assert len(remote.spans) == 3


def test_a_stop_interrupts_the_wait_for_another_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 3600.0)
    remote, stop = FakeRemote(), threading.Event()
    remote.fail = failing(1)
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Stopped):
        get(remote, tmp_path / "part", 1, Watch(stop=stop))


def test_an_error_in_one_thread_spares_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    remote = FakeRemote(bytes(1000 * RANGE))
    remote.fail = failing(1)
    with pytest.raises(ValueError, match="cannot be reached"):
        download(remote, tmp_path / "part", 1000 * RANGE, workers=2, watch=Watch())
    assert len(remote.spans) < 900


SLOW = """
import sys, time
from pathlib import Path
from gust_torch.artifacts.fetching import download as module
from gust_torch.artifacts.fetching import journal as download_journal
from gust_torch.artifacts.fetching.watch import Watch

class Slow:
    name, supports_ranges = "t.tar.gz", True
    content = Path(sys.argv[1]).read_bytes()
    size = len(content)

    def read_range(self, start, stop):
        time.sleep(float(sys.argv[3]))
        with open(sys.argv[1] + ".log", "a") as log:
            log.write(f"{start}\\n")
        return self.content[start:stop]

module.RANGE_BYTES, download_journal.SAVE_SECONDS = 1000, 0.0
module.download(Slow(), Path(sys.argv[2]), Slow.size, workers=2, watch=Watch())
"""


def test_a_killed_download_continues(tmp_path: Path) -> None:
    source, part, log = tmp_path / "source", tmp_path / "part", tmp_path / "source.log"
    source.write_bytes(CONTENT)
    command = [sys.executable, "-c", SLOW, str(source), str(part)]
    process = subprocess.Popen([*command, "0.1"])
    deadline = time.monotonic() + 30
    while downloaded_bytes(part, len(CONTENT)) < 3 * RANGE and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    have = downloaded_bytes(part, len(CONTENT))
    assert 3 * RANGE <= have < len(CONTENT)
    log.unlink()
    subprocess.run([*command, "0"], check=True)
    assert part.read_bytes() == CONTENT
    assert len(log.read_text().split()) == 11 - have // RANGE
