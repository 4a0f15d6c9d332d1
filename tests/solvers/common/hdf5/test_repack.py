"""Rewriting a file, and the command line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer, main, open_file, repack, validate

Write = Callable[..., Path]


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    """Return a file of the first version of the format: auto-chunked, gzip, no time."""
    path = tmp_path / "seed.h5"
    with h5py.File(path, "w") as file:
        data = np.random.default_rng(0).standard_normal((10, 70, 64)).astype(np.float32)
        file.create_dataset("fields/omega", data=data, chunks=(3, 16, 16), compression="gzip")
        file["fields/omega"].attrs["units"] = "1/s"
        file["coordinates/x"] = np.arange(70, dtype=np.float32)
        file["coordinates/y"] = np.arange(64, dtype=np.float32)
        file.create_group("metadata").attrs["Re"] = 1000.0
        file["notes/origin"] = "elsewhere"
        file.attrs["title"] = "run 7"
    return path


@pytest.mark.parametrize("compression", [None, "lz4", "gzip"])
def test_everything_survives_with_one_frame_a_chunk(
    seed_file: Path, compression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solvers.common.hdf5.repack.BLOCK_BYTES", 50_000)  # several blocks
    with h5py.File(seed_file, "r") as file:
        expected = file["fields/omega"][:]
    assert repack(seed_file, compression=compression) == seed_file
    assert validate(seed_file) == []
    with open_file(seed_file) as file:
        np.testing.assert_array_equal(file["fields/omega"], expected)
        assert file["fields/omega"].chunks == (1, 70, 64)
        assert file["fields/omega"].attrs["units"] == "1/s"
        assert file["notes/origin"][()] == b"elsewhere"
        assert file.attrs["title"] == "run 7"
        assert file["metadata"].attrs["Re"] == 1000.0
        assert "coordinates/time" not in file
    assert [item.name for item in seed_file.parent.iterdir()] == ["seed.h5"]


def test_a_repacked_run_can_be_resumed(write_file: Write, tmp_path: Path) -> None:
    path = write_file(4, complete=False)
    target = repack(path, output=tmp_path / "copy.h5")
    with HDF5Writer.resume(target, num_samples=3) as writer:
        writer.append({"vorticity": np.zeros((8, 6))}, time=5.0)
    with open_file(target) as file:
        assert file["coordinates/time"][:].tolist() == [0.0, 0.5, 1.0, 5.0]
        assert file["metadata"].attrs["solver"] == "test"
    assert validate(target) == []


def test_a_frame_without_its_time_is_dropped(write_file: Write) -> None:
    path = write_file(4)
    with h5py.File(path, "r+") as file:
        file["coordinates/time"].resize(3, axis=0)
        file["metadata"].attrs["complete"] = False
    repack(path)
    with open_file(path) as file:
        assert {len(file[name]) for name in ("fields/vorticity", "coordinates/trajectory")} == {3}


def test_a_file_being_written_and_an_existing_output_are_left_alone(
    open_writer: Callable[..., HDF5Writer], write_file: Write, tmp_path: Path
) -> None:
    with open_writer() as writer:
        writer.append({"vorticity": np.zeros((8, 6))}, time=0.0)
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            repack(tmp_path / "data.h5")
    (tmp_path / "there.h5").write_text("precious")
    with pytest.raises(FileExistsError, match="--overwrite"):
        repack(tmp_path / "data.h5", output=tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "precious"


def test_a_field_of_wrong_rank_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["fields/u"] = np.zeros((5, 4), np.float32)
    before = (tmp_path / "flat.h5").read_bytes()
    with pytest.raises(ValueError, match=r"/fields/u: expected \(n_samples, H, W\)"):
        repack(tmp_path / "flat.h5")
    assert (tmp_path / "flat.h5").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["flat.h5"]


def test_info_says_what_the_file_holds(write_file: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(3, compression="lz4")
    assert main(["info", str(path)]) == 0
    output = capsys.readouterr().out
    assert "samples       3 (complete)" in output
    assert "field         vorticity (8, 6) float32, chunk (1, 8, 6), lz4" in output
    assert "metadata      boundary_y = wall" in output


def test_validate_prints_violations_and_fails(write_file: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(3)
    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: valid\n"
    with h5py.File(path, "r+") as file:
        del file["coordinates/x"]
        del file["metadata"].attrs["solver"]
    assert main(["validate", str(path)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_repack_runs_as_a_module(seed_file: Path) -> None:
    module = "solvers.common.hdf5_utils"
    command = [sys.executable, "-m", module, "repack", str(seed_file), "--compression", "lz4"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"{seed_file}: ")
    assert "10/10 frames (100.0 %)" in result.stderr
    with open_file(seed_file) as file:
        assert file["fields/omega"].chunks == (1, 70, 64)


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("info", "repack"):
        assert main([command, str(tmp_path / "absent.h5")]) == 1
        error = capsys.readouterr().err
        assert (
            error == f"error: {tmp_path / 'absent.h5'}: expected an HDF5 file, found none; check the path\n"
        )


def _replace(path: Path, name: str, values: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = values


@pytest.mark.parametrize(
    "times", [np.arange(4.0)[None], np.arange(4.0)[:, None], np.arange(3.0), np.arange(5.0)]
)
def test_no_frame_is_dropped_unasked(write_file: Write, times: np.ndarray) -> None:
    path = write_file(4)
    _replace(path, "coordinates/time", times)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="time"):
        repack(path)
    assert path.read_bytes() == before
    assert validate(path) != []


def test_frames_that_are_not_stored_are_not_written_as_zeros(write_file: Write) -> None:
    path = write_file(4)
    with h5py.File(path, "r+") as file:
        del file["fields/vorticity"]
        file.create_dataset("fields/vorticity", (4, 8, 6), "f4", chunks=(1, 8, 6))[:2] = 1
    with pytest.raises(ValueError, match=r"/fields/vorticity: sample 2 was never written"):
        repack(path)


def test_a_virtual_dataset_becomes_a_real_one(write_file: Write, tmp_path: Path) -> None:
    path = write_file(4)
    with h5py.File(path, "r+") as file:
        frames = file["fields/vorticity"][:]
        with h5py.File(tmp_path / "source.h5", "w") as source:
            source["d"] = frames
        del file["fields/vorticity"]
        layout = h5py.VirtualLayout(frames.shape, "f4")
        layout[:] = h5py.VirtualSource("source.h5", "d", frames.shape)
        file.create_virtual_dataset("fields/vorticity", layout)
    repack(path)
    (tmp_path / "source.h5").unlink()
    with open_file(path) as file:
        np.testing.assert_array_equal(file["fields/vorticity"], frames)


def test_values_that_would_change_their_meaning_are_refused(write_file: Write) -> None:
    path = write_file(4)
    _replace(path, "fields/vorticity", np.full((4, 8, 6), 1e300))
    with pytest.raises(ValueError, match="beyond float32"):
        repack(path)
    _replace(path, "fields/vorticity", np.ones((4, 8, 6), np.int16))
    with h5py.File(path, "r+") as file:
        file["fields/vorticity"].attrs["scale_factor"] = 0.01
    with pytest.raises(ValueError, match="scale_factor"):
        repack(path)


def test_two_names_of_one_dataset_and_groups_that_contain_themselves_stay_so(write_file: Write) -> None:
    path = write_file(4)
    with h5py.File(path, "r+") as file:
        file["fields/omega"] = file["fields/vorticity"]
        file["notes/loop"] = file.create_group("notes") if "notes" not in file else file["notes"]
        file["root"] = file["/"]
        file["nowhere"] = h5py.SoftLink("/nothing")
    size = path.stat().st_size
    repack(path)
    assert path.stat().st_size < 2 * size
    with open_file(path) as file:
        assert file["fields/omega"] == file["fields/vorticity"]
        assert file["root"] == file["/"]


LIMITED = """
import resource, sys
from solvers.common.hdf5_utils import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
sys.exit(main(["repack", sys.argv[1], "--compression", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    ("limit", "compression"), [(500, "none"), (3_000, "gzip"), (100_000, "none"), (181_000, "none")]
)
def test_a_full_disk_is_one_line_and_no_crash(seed_file: Path, limit: int, compression: str) -> None:
    before = seed_file.read_bytes()
    command = [sys.executable, "-c", LIMITED, str(seed_file), str(limit), compression]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {seed_file}: file too large")
    assert seed_file.read_bytes() == before
    assert [item.name for item in seed_file.parent.iterdir()] == ["seed.h5"]
