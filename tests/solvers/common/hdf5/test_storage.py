"""Frames that HDF5 would read as zeros, or out of another file, are told."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5.storage import storage_problem, stored_elsewhere

FRAMES = np.arange(40 * 8 * 8, dtype=np.float32).reshape(40, 8, 8)


@pytest.fixture
def file(tmp_path: Path) -> h5py.File:
    """Return an empty file beside two others that hold 20 frames each as `d`."""
    for i in range(2):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as part:
            part["d"] = FRAMES[20 * i : 20 * i + 20]
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        yield opened


def _virtual(file: h5py.File, *sources: str, frames: int = 20, name: str = "d") -> h5py.Dataset:
    layout = h5py.VirtualLayout((40, 8, 8), "f4")
    for i, source in enumerate(sources):
        layout[i * 20 : i * 20 + frames] = h5py.VirtualSource(source, name, (frames, 8, 8))
    return file.create_virtual_dataset("v", layout)


@pytest.mark.parametrize(
    "layout", [{}, {"chunks": (1, 8, 8)}, {"chunks": (7, 3, 8)}, {"chunks": (3, 8, 8), "compression": "gzip"}]
)
def test_written_frames_are_there(file: h5py.File, layout: dict[str, object]) -> None:
    assert storage_problem(file.create_dataset("v", data=FRAMES, **layout)) is None
    assert stored_elsewhere(file) == []


@pytest.mark.parametrize(("chunks", "first"), [((1, 8, 8), 20), ((3, 4, 8), 21)])
def test_chunks_without_storage(file: h5py.File, chunks: tuple[int, ...], first: int) -> None:
    data = file.create_dataset("v", shape=FRAMES.shape, dtype="f4", chunks=chunks)
    data[:20] = FRAMES[:20]
    assert f"sample {first} was never written" in str(storage_problem(data))
    assert storage_problem(data, 20) is None  # of a file that grows
    assert "/v: sample" in stored_elsewhere(file)[0]


def test_a_hole_in_the_middle(file: h5py.File) -> None:
    data = file.create_dataset("v", shape=FRAMES.shape, dtype="f4", chunks=(1, 4, 8))
    data[:5] = FRAMES[:5]
    data[5, :4] = FRAMES[5, :4]
    data[6:] = FRAMES[6:]
    assert "sample 5 was never written" in str(storage_problem(data))


def test_allocated_but_never_written(file: h5py.File) -> None:
    assert "never written" in str(storage_problem(file.create_dataset("v", shape=(4, 8, 8), dtype="f4")))


def test_small_and_empty_datasets_are_no_problem(file: h5py.File) -> None:
    file["number"], file["nothing"] = 1.0, h5py.Empty("f4")
    file.create_dataset("no_rows", shape=(0, 8, 8), maxshape=(None, 8, 8), dtype="f4")
    assert all(storage_problem(file[name]) is None for name in ("number", "nothing", "no_rows"))


def test_external_storage_is_refused_unless_allowed(file: h5py.File, tmp_path: Path) -> None:
    raw = tmp_path / "raw.bin"
    data = file.create_dataset("v", data=FRAMES, external=[(raw, 0, FRAMES.nbytes)])
    file.flush()
    assert "raw.bin" in str(storage_problem(data))
    assert storage_problem(data, allow_external=True) is None
    assert "raw.bin" in str(storage_problem(data, allow_external=True, here=True))
    raw.write_bytes(raw.read_bytes()[:100])
    assert "shorter" in str(storage_problem(data, allow_external=True))


def _move(folder: Path) -> None:
    (folder / "part1.h5").rename(folder / "elsewhere.h5")


def _spoil(folder: Path) -> None:
    (folder / "part1.h5").write_text("text")


def _shorten(folder: Path) -> None:
    with h5py.File(folder / "part1.h5", "w") as part:
        part["d"] = FRAMES[:5]


def _leave_unwritten(folder: Path) -> None:
    with h5py.File(folder / "part1.h5", "w") as part:
        part.create_dataset("d", shape=(20, 8, 8), dtype="f4", chunks=(1, 8, 8))[:7] = 1


def _rename(folder: Path) -> None:
    with h5py.File(folder / "part1.h5", "a") as part:
        part.move("d", "e")


def test_a_virtual_dataset_with_all_its_sources(file: h5py.File) -> None:
    data = _virtual(file, "part0.h5", "part1.h5")
    assert storage_problem(data) is None
    assert "part0.h5" in str(storage_problem(data, here=True))
    assert "/v:" in stored_elsewhere(file)[0]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_move, "missing"),
        (_spoil, "opened"),
        (_shorten, "smaller"),
        (_leave_unwritten, "never written"),
        (_rename, "missing"),
    ],
)
def test_a_virtual_dataset_without_its_source(
    file: h5py.File, tmp_path: Path, spoil: Callable[[Path], None], word: str
) -> None:
    data = _virtual(file, "part0.h5", "part1.h5")
    spoil(tmp_path)
    problem = str(storage_problem(data))
    assert "part1.h5" in problem
    assert word in problem


def test_a_virtual_dataset_that_is_not_covered(file: h5py.File) -> None:
    assert "only" in str(storage_problem(_virtual(file, "part0.h5")))


def test_links_out_of_the_file_are_found_below_groups_that_contain_themselves(file: h5py.File) -> None:
    group = file.create_group("a/b")
    group["loop"] = file["a"]
    group["out"] = h5py.ExternalLink("part0.h5", "/d")
    group["nowhere"] = h5py.SoftLink("/nothing")
    (problem,) = stored_elsewhere(file)
    assert problem.startswith("/a/b/out:")
    assert "part0.h5" in problem
