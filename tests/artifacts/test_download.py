"""Downloads: pieces at the same time, continued after errors, full disks and kills; nothing wrong is kept."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gust_torch.artifacts import download as module
from gust_torch.artifacts.download import download
from gust_torch.artifacts.registry import DatasetEntry

PIECE = 1000
CONTENT = random.Random(0).randbytes(10 * PIECE + 17)
SHA = hashlib.sha256(CONTENT).hexdigest()


def entry_of(content: bytes = CONTENT) -> DatasetEntry:
    """Return an entry of the registry for some bytes."""
    sha = hashlib.sha256(content).hexdigest()
    return DatasetEntry("t", "t:v0", "grid", {"train": "t_train.h5"}, sha, len(content), 1)


class FakeRemote:
    """A remote file in memory that notes what is read, and fails when told to.

    Attributes:
        spans: Pieces that were read, or (0, size) for a whole download.
        fail: Called with the number of the read, from 1; may raise.
    """

    name = "t.tar.gz"

    def __init__(self, content: bytes = CONTENT, *, ranges: bool = True) -> None:
        self.content, self.read = content, self.read_spans if ranges else None
        self.size: int | None = len(content)
        self.reads: list[list[tuple[int, int]]] = []
        self.fail: Callable[[int], None] = lambda count: None

    @property
    def spans(self) -> list[tuple[int, int]]:
        return [span for read in self.reads for span in read]

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        self.reads.append(list(spans))
        self.fail(len(self.reads))
        return [self.content[start:stop] for start, stop in spans]

    def download(self, path: Path) -> None:
        self.reads.append([(0, len(self.content))])
        path.write_bytes(self.content[:100])
        self.fail(len(self.reads))
        path.write_bytes(self.content)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)


def get(
    remote: FakeRemote, target: Path, workers: int = 3, count: Callable[[int], object] = lambda size: None
) -> None:
    download(remote, target, entry_of(), workers=workers, count=count)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def failing(*numbers: int, error: Exception | None = None) -> Callable[[int], None]:
    """Raise at these reads."""

    def fail(count: int) -> None:
        if count in numbers:
            raise error or ValueError("s3://b/t.tar.gz: cannot be reached") from TimeoutError()

    return fail


@pytest.mark.parametrize(("workers", "reads"), [(1, 11), (3, 4), (32, 1)])
def test_pieces_in_parallel(tmp_path: Path, workers: int, reads: int) -> None:
    remote, seen = FakeRemote(), []
    get(remote, tmp_path / "t", workers, seen.append)
    assert len(remote.reads) == reads
    assert len(remote.spans) == len(set(remote.spans)) == 11
    assert sum(seen) == len(CONTENT)


def test_it_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    first, second = FakeRemote(), FakeRemote()
    first.fail = failing(5)
    with pytest.raises(ValueError, match="cannot be reached; the same command continues"):
        get(first, tmp_path / "t", workers=1)
    assert (tmp_path / "t.incomplete").read_bytes() == CONTENT[: 4 * PIECE]
    assert not (tmp_path / "t").exists()
    get(second, tmp_path / "t")
    assert second.spans == [(i * PIECE, min((i + 1) * PIECE, len(CONTENT))) for i in range(4, 11)]


@pytest.mark.parametrize("have", [0, 1, 1001, len(CONTENT), len(CONTENT) + 5])
def test_any_length_is_gone_on_from(tmp_path: Path, have: int) -> None:
    (tmp_path / "t.incomplete").write_bytes((CONTENT + b"more than all")[:have])
    remote = FakeRemote()
    get(remote, tmp_path / "t")
    assert sum(stop - start for start, stop in remote.spans) == max(len(CONTENT) - have, 0)


def test_the_beginning_of_something_else_is_removed(tmp_path: Path) -> None:
    (tmp_path / "t.incomplete").write_bytes(bytes(2000))
    with pytest.raises(ValueError, match=f"the registry expects {SHA}; it was removed"):
        get(FakeRemote(), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
    get(FakeRemote(), tmp_path / "t")


@pytest.mark.parametrize("ranges", [True, False])
def test_another_size_is_noticed_before_a_byte_moves(tmp_path: Path, ranges: bool) -> None:
    remote = FakeRemote(CONTENT + b"x", ranges=ranges)
    with pytest.raises(ValueError, match="10018 bytes in the store, the registry says 10017"):
        get(remote, tmp_path / "t")
    assert remote.spans == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_passing_trouble_is_survived(tmp_path: Path, ranges: bool) -> None:
    remote = FakeRemote(ranges=ranges)
    remote.fail = failing(1, 2)
    get(remote, tmp_path / "t", workers=1)
    assert len(remote.spans) == (13 if ranges else 3)


@pytest.mark.parametrize("ranges", [True, False])
def test_delays_grow_and_end(tmp_path: Path, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    monkeypatch.setattr(time, "sleep", delays.append)
    remote = FakeRemote(ranges=ranges)
    remote.fail = failing(*range(1, 99))
    with pytest.raises(ValueError, match="cannot be reached; the same command continues"):
        get(remote, tmp_path / "t", workers=1)
    assert delays == [0.001, 0.002, 0.004, 0.008]


@pytest.mark.parametrize("cause", [FileNotFoundError(), PermissionError()])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_cannot_get_better_is_not_repeated(tmp_path: Path, cause: Exception, ranges: bool) -> None:
    def fail(count: int) -> None:
        raise ValueError("s3://b/t.tar.gz: no such file; check the URL") from cause

    remote = FakeRemote(ranges=ranges)
    remote.fail = fail
    with pytest.raises(ValueError, match="no such file"):
        get(remote, tmp_path / "t", workers=1)
    assert len(remote.spans) == 1


def test_a_whole_download_that_breaks_off_is_repeated(tmp_path: Path) -> None:
    remote = FakeRemote(ranges=False)
    remote.size = None
    remote.fail = lambda count: setattr(remote, "content", CONTENT[:-5] if count < 3 else CONTENT)
    (tmp_path / "t.incomplete").write_bytes(b"half of something")
    get(remote, tmp_path / "t")
    assert len(remote.spans) == 3
    remote.fail = lambda count: setattr(remote, "content", CONTENT[:-5])
    with pytest.raises(ValueError, match="10012 bytes came where 10017 were expected; the same command"):
        get(remote, tmp_path / "t")


def test_a_full_disk_keeps_what_came(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    remote = FakeRemote()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3300, limits[1]))
    try:
        with pytest.raises(OSError, match=r"t\.incomplete"):
            get(remote, tmp_path / "t", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert (tmp_path / "t.incomplete").read_bytes() == CONTENT[:3300]
    get(FakeRemote(), tmp_path / "t")


def test_a_stop_ends_it(tmp_path: Path) -> None:
    remote = FakeRemote()

    def stop(size: int) -> None:
        if len(remote.reads) == 3:
            raise SystemExit

    with pytest.raises(SystemExit):
        get(remote, tmp_path / "t", 1, stop)
    assert len(remote.spans) == 3


SLOW = """
import sys, time
from pathlib import Path
from gust_torch.artifacts import download as module
from gust_torch.artifacts.registry import DatasetEntry

class Slow:
    name = "t.tar.gz"
    content = Path(sys.argv[1]).read_bytes()
    size = len(content)

    def read(self, spans):
        time.sleep(float(sys.argv[4]))
        with open(sys.argv[1] + ".log", "a") as log:
            log.write("".join(f"{start}\\n" for start, _ in spans))
        return [self.content[start:stop] for start, stop in spans]

module.PIECE_BYTES = 20_000
entry = DatasetEntry("t", "t:v0", "grid", {"train": "t_train.h5"}, sys.argv[3], Slow.size, 1)
module.download(Slow(), Path(sys.argv[2]), entry, workers=2, count=lambda size: None)
"""


def test_a_killed_download_continues(tmp_path: Path) -> None:
    content = CONTENT * 40
    source, target, log = tmp_path / "source", tmp_path / "t", tmp_path / "source.log"
    part = tmp_path / "t.incomplete"
    source.write_bytes(content)
    sha = hashlib.sha256(content).hexdigest()
    command = [sys.executable, "-c", SLOW, str(source), str(target), sha]
    process = subprocess.Popen([*command, "0.1"])
    deadline = time.monotonic() + 30
    while (not part.exists() or part.stat().st_size < 60_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert 60_000 <= have < len(content)
    log.unlink()
    subprocess.run([*command, "0"], check=True)
    assert target.read_bytes() == content
    assert len(log.read_text().split()) == -(-(len(content) - have) // 20_000)
