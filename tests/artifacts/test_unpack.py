"""Extraction: good tarballs in every dialect, and hostile ones, which change nothing outside the folder."""

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gust_torch.artifacts import unpack as module
from gust_torch.artifacts.unpack import unpack as extract

TRAIN = "burgers1d_train.h5"
VAL = "burgers1d_val.h5"
STORE = "darcy2d_mesh_train.zarr"


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **attributes: object) -> tuple:
    """Return a header and its bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def tar_bytes(*members: tuple, dialect: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an uncompressed tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Path]:
    """Yield an empty folder; afterwards everything around it must be as before."""
    folder = tmp_path / "outer" / "root" / "stage"
    folder.mkdir(parents=True)
    (tmp_path / "outer" / "victim").write_text("untouched")
    yield folder
    around = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if folder not in path.parents
    }
    assert around == {"outer", "outer/root", "outer/root/stage", "outer/victim"} | ({"t.tgz"} & around)
    assert (tmp_path / "outer" / "victim").read_text() == "untouched"
    for path in folder.rglob("*"):
        assert path.is_dir() or path.is_file()
        assert not path.is_symlink()


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with both libraries, of which a platform may lack the first."""
    if request.param == "zlib":
        monkeypatch.setattr(module, "igzip_threaded", None)


@pytest.fixture
def unpack(stage: Path, tmp_path: Path) -> Callable[..., Path]:
    """Extract compressed bytes into the stage."""

    def run(data: bytes, unpacked: int = 5, members: tuple[str, ...] = (TRAIN,)) -> Path:
        (tmp_path / "t.tgz").write_bytes(data)
        extract(tmp_path / "t.tgz", stage, members=members, unpacked=unpacked, count=lambda size: None)
        return stage

    return run


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_and_stores_come_out_as_they_went_in(unpack: Callable[..., Path], dialect: int) -> None:
    data = np.random.default_rng(0).bytes(3_000_001)
    long = f"{STORE}/" + "/".join(["a" * 60, "b" * 60, "c" * 60])
    tar = tar_bytes(
        member(TRAIN, data),
        member(STORE, kind=tarfile.DIRTYPE, mode=0o777),
        member(f"{STORE}/zarr.json", b"{}"),
        member(f"{STORE}/u/c/0", b""),
        member(f"{STORE}/empty", kind=tarfile.DIRTYPE),
        member(long, b"deep"),
        dialect=dialect,
    )
    folder = unpack(gzip.compress(tar), len(data) + 6, (TRAIN, STORE))
    assert (folder / TRAIN).read_bytes() == data
    assert (folder / STORE / "zarr.json").read_bytes() == b"{}"
    assert (folder / STORE / "u/c/0").read_bytes() == b""
    assert (folder / STORE / "empty").is_dir()
    assert (folder / long).read_bytes() == b"deep"


def test_what_the_seeds_tar_line_packs(unpack: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "outer" / "root" / "stage" / "source"
    source.mkdir()
    (source / TRAIN).write_bytes(b"train")
    (source / VAL).write_bytes(bytes(100_000))
    tarball = source / "x.tar.gz"
    subprocess.run(["tar", "-czf", tarball, "-C", source, TRAIN, VAL], check=True)
    folder = unpack(tarball.read_bytes(), 100_005, (TRAIN, VAL))
    assert (folder / VAL).read_bytes() == bytes(100_000)


def test_gzip_members_in_a_row(unpack: Callable[..., Path], library: None) -> None:
    tar = tar_bytes(member(TRAIN, bytes(range(256)) * 5000))
    data = b"".join(gzip.compress(tar[start : start + 70_001]) for start in range(0, len(tar), 70_001))
    assert (unpack(data, 1_280_000) / TRAIN).read_bytes() == bytes(range(256)) * 5000


@pytest.mark.parametrize("mode", [0o4755, 0o7777, 0o000, 0o222])
def test_permissions_are_those_of_this_process(unpack: Callable[..., Path], mode: int) -> None:
    folder = unpack(gzip.compress(tar_bytes(member(TRAIN, b"train", mode=mode, uid=12, gid=34))))
    (folder / "mine").touch()
    assert (folder / TRAIN).stat().st_mode == (folder / "mine").stat().st_mode
    assert (folder / TRAIN).stat().st_uid == os.getuid()


HOSTILE = {
    "parent": ([member("../x", b"12345")], "its name"),
    "parent inside": ([member("a/../../x", b"12345")], "its name"),
    "parent below a store": ([member(f"{STORE}/../../x", b"12345")], "its name"),
    "dot": ([member(f"./{TRAIN}", b"12345")], "its name"),
    "double slash": ([member(f"{STORE}//x", b"12345")], "its name"),
    "absolute": ([member("/etc/x", b"12345")], "its name"),
    "windows parent": ([member("..\\x", b"12345")], "its name"),
    "windows parent in a store": ([member(f"{STORE}\\..\\..\\x", b"12345")], "its name"),
    "drive": ([member("C:x", b"12345")], "its name"),
    "stream": ([member(f"{STORE}/a:b", b"12345")], "its name"),
    "newline": ([member(f"{STORE}/a\nb", b"12345")], "its name"),
    "escape": ([member(f"{STORE}/\x1b[2J", b"12345")], "its name"),
    "right to left": ([member(f"{STORE}/\u202etxt", b"12345")], "its name"),
    "symlink": ([member(TRAIN, kind=tarfile.SYMTYPE, linkname="/etc/passwd")], "link, a device"),
    "symlink to a folder": (
        [member(STORE, kind=tarfile.SYMTYPE, linkname="../.."), member(f"{STORE}/victim", b"12345")],
        "link, a device",
    ),
    "symlink below a store": (
        [
            member(STORE, kind=tarfile.DIRTYPE),
            member(f"{STORE}/a", kind=tarfile.SYMTYPE, linkname="../../.."),
            member(f"{STORE}/a/victim", b"12345"),
        ],
        "link, a device",
    ),
    "hard link": ([member(TRAIN, kind=tarfile.LNKTYPE, linkname="/etc/passwd")], "link, a device"),
    "character device": ([member(TRAIN, kind=tarfile.CHRTYPE, devmajor=1, devminor=3)], "link, a device"),
    "block device": ([member(TRAIN, kind=tarfile.BLKTYPE, devmajor=8)], "link, a device"),
    "pipe": ([member(TRAIN, kind=tarfile.FIFOTYPE)], "link, a device"),
    "old sparse": ([member(TRAIN, b"12345", kind=tarfile.GNUTYPE_SPARSE)], "link, a device"),
    "continuous": ([member(TRAIN, b"12345", kind=tarfile.CONTTYPE)], "link, a device"),
    "unknown type": ([member(TRAIN, b"12345", kind=b"Z")], "link, a device"),
    "twice": ([member(TRAIN, b"12345"), member(TRAIN, b"67890")], "comes twice"),
    "folder, then file": ([member(STORE, kind=tarfile.DIRTYPE), member(STORE, b"1")], "it is none of"),
    "file, then below it": (
        [member(f"{STORE}/a", b"1"), member(f"{STORE}/a/b", b"2")],
        "comes twice",
    ),
    "below it, then file": ([member(f"{STORE}/a/b", b"1"), member(f"{STORE}/a", b"2")], "comes twice"),
    "file, then folder": (
        [member(f"{STORE}/a", b"1"), member(f"{STORE}/a", kind=tarfile.DIRTYPE)],
        "comes twice",
    ),
    "case": ([member(f"{STORE}/a", b"1"), member(f"{STORE}/A", b"2")], "comes twice"),
    "case of a folder": ([member(f"{STORE}/a/x", b"1"), member(f"{STORE}/A/y", b"2")], "comes twice"),
    "unicode form": (
        [member(f"{STORE}/\u00e9", b"1"), member(f"{STORE}/e\u0301", b"2")],
        "comes twice",
    ),
    "not listed": ([member(TRAIN, b"12345"), member("evil.py", b"1")], "it is none of"),
    "below a file": ([member(f"{TRAIN}/x", b"1")], "it is none of"),
    "folder for a file": ([member(TRAIN, kind=tarfile.DIRTYPE)], "it is none of"),
    "file for a folder": ([member(STORE, b"12345")], "it is none of"),
    "missing": ([member(TRAIN, b"12345")], f"without {STORE}"),
    "empty": ([], "without"),
    "long part": ([member(f"{STORE}/{'a' * 256}", b"1")], "its name"),
    "long name": ([member(f"{STORE}/{'a/' * 600}b", b"1")], "its name"),
    "pax path": ([member(TRAIN, b"12345", pax_headers={"path": "../x"})], "its name"),
    "pax path with NUL": ([member(TRAIN, b"1", pax_headers={"path": f"{TRAIN}\0"})], "its name"),
    "pax linkpath": (
        [member(TRAIN, kind=tarfile.SYMTYPE, pax_headers={"linkpath": "/etc"})],
        "link, a device",
    ),
    "pax sparse": (
        [member(TRAIN, b"12345", pax_headers={"GNU.sparse.size": "99999999999", "GNU.sparse.map": "0,5"})],
        "link, a device",
    ),
    "pax sparse name": ([member(TRAIN, b"12345", pax_headers={"GNU.sparse.name": "../x"})], "link, a device"),
    "pax size": ([member(TRAIN, b"12345", pax_headers={"size": "99999999999"})], "beyond the 6 bytes"),
    "pax negative size": ([member(TRAIN, b"12345", pax_headers={"size": "-512"})], "a device|damaged"),
    "pax header of megabytes": (
        [member(TRAIN, b"12345", pax_headers={"comment": "x" * 3_000_000})],
        "too long",
    ),
    "too much": ([member(TRAIN, b"1234567")], "beyond the 6 bytes"),
    "too little": (
        [member(TRAIN, b"12345"), member(STORE, kind=tarfile.DIRTYPE)],
        "have 5 bytes",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members_are_refused(unpack: Callable[..., Path], case: str) -> None:
    members, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message) as caught:
        unpack(gzip.compress(tar_bytes(*members)), 6, (TRAIN, STORE))
    assert "\n" not in str(caught.value)


def test_a_global_pax_header_names_nothing(unpack: Callable[..., Path]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"path": "../../victim"}) as tar:
        tar.addfile(tarfile.TarInfo(TRAIN))
    with pytest.raises(ValueError, match="its name"):
        unpack(gzip.compress(buffer.getvalue()), 0)


def test_a_name_that_is_no_unicode(unpack: Callable[..., Path]) -> None:
    tar = tar_bytes(member(f"{STORE}/\udcff", b"12345"), dialect=tarfile.GNU_FORMAT)
    with pytest.raises(ValueError, match="its name"):
        unpack(gzip.compress(tar), 5, (STORE,))


def test_headers_that_nest_without_end(unpack: Callable[..., Path]) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 512
    block = name.tobuf(tarfile.GNU_FORMAT) + TRAIN.encode().ljust(512, b"\0")
    with pytest.raises(ValueError, match="damaged"):
        unpack(gzip.compress(block * 5000))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_many_megabytes(unpack: Callable[..., Path], kind: bytes) -> None:
    """tarfile would hold all of them, and search a pax header for numbers in quadratic time."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 18
    with pytest.raises(ValueError, match="a header is too long"):
        unpack(gzip.compress((header.tobuf() + b"1" * (1 << 18)) * 50 + GOOD, 1))


def test_a_bomb_stops_at_the_promised_size(unpack: Callable[..., Path], stage: Path) -> None:
    header = tarfile.TarInfo(TRAIN)
    header.size = 5
    bomb = header.tobuf() + bytes(300_000_000)
    with pytest.raises(ValueError, match="something follows"):
        unpack(gzip.compress(bomb, 1))
    assert sum(path.stat().st_size for path in stage.rglob("*")) <= 5


def test_a_bomb_of_many_members_stops(unpack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gust_torch.artifacts.unpack.MAX_MEMBERS", 50)
    folders = [member(f"{STORE}/{index}", kind=tarfile.DIRTYPE) for index in range(51)]
    with pytest.raises(ValueError, match="50 members"):
        unpack(gzip.compress(tar_bytes(*folders)), 0, (STORE,))


GOOD = tar_bytes(member(TRAIN, b"12345"))


def zipped(data: bytes) -> bytes:
    """Return the same bytes at any time: they name the tests."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "tar file"),
        (b"<html>not found</html>", "gzip|tar file"),
        (GOOD, "gzip|tar file"),
        (zipped(b"not a tarball" * 100), "damaged|tar file|CRC|crc|[Ii]nc"),
        (zipped(b""), "no tar file"),
        (zipped(GOOD)[:-4], "cut short|damaged|ended"),
        (zipped(GOOD)[:40], "cut short|damaged|ended"),
        (zipped(GOOD) + b"garbage", "gzip|follows|tar file|ended"),
        (zipped(GOOD) + zipped(b"garbage"), "something follows"),
        (zipped(GOOD + b"garbage"), "something follows"),
        (zipped(GOOD[:1024] + b"x" * 100), "something follows"),
        (zipped(GOOD[:1024] + b"x" * 512), "something follows"),
        (zipped(GOOD[:514]), "cut short|damaged|ended"),
        (zipped(GOOD[:-1] + b"x"), "something follows"),
        (zipped(GOOD)[:-8] + bytes(8), "damaged|tar file|CRC|crc|[Ii]nc"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(
    unpack: Callable[..., Path], library: None, data: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(data)


def test_random_damage_to_headers_is_one_line(unpack: Callable[..., Path], stage: Path) -> None:
    """Whatever the bytes say: either the right files, or a ValueError."""
    members = [
        member(STORE, kind=tarfile.DIRTYPE),
        member(f"{STORE}/{'a' * 120}", b"12345", pax_headers={"GNU.sparse.x": "1", "mtime": "1.5"}),
        member(TRAIN, b""),
    ]
    tar = tar_bytes(*members)
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(tar)
        for position in rng.integers(0, len(tar) // 2, rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        for start in range(0, len(damaged), 512):  # headers with right checksums get further
            block = bytes(damaged[start : start + 512])
            if block[257:262] == b"ustar":
                damaged[start + 148 : start + 156] = b"%06o\0 " % tarfile.calc_chksums(block)[0]
        with contextlib.suppress(ValueError):
            unpack(gzip.compress(bytes(damaged), 1), 5, (TRAIN, STORE))
        subprocess.run(["rm", "-rf", *map(str, stage.iterdir())], check=True)


def test_an_existing_file_is_never_written_through(
    unpack: Callable[..., Path], stage: Path, tmp_path: Path
) -> None:
    (stage / TRAIN).symlink_to(tmp_path / "outer" / "victim")
    with pytest.raises(OSError, match="exists"):
        unpack(gzip.compress(GOOD))
    (stage / TRAIN).unlink()


def test_a_stop_ends_it_between_blocks(stage: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tgz").write_bytes(gzip.compress(tar_bytes(member(TRAIN, bytes(20_000_000)))))
    seen: list[int] = []

    def stop(size: int) -> None:
        seen.append(size)
        raise SystemExit

    with pytest.raises(SystemExit):
        extract(tmp_path / "t.tgz", stage, members=(TRAIN,), unpacked=20_000_000, count=stop)
    assert len(seen) == 1


def test_a_full_disk_names_the_file(unpack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    data = gzip.compress(tar_bytes(member(TRAIN, bytes(3_000_000))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match=TRAIN):
            unpack(data, 3_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
