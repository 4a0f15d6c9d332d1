"""What the writer writes, refuses and keeps."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, read_hdf5_info, validate

Frame = Callable[..., np.ndarray]
Open = Callable[..., HDF5Writer]
Write = Callable[..., Path]


def test_frames_blocks_and_vectors_come_back(open_writer: Open, make_frame: Frame, tmp_path: Path) -> None:
    fields = {"vorticity": (8, 6), "velocity": (8, 6, 2)}
    scalars = np.stack([make_frame(number) for number in range(5)])
    vectors = np.stack([make_frame(number, (8, 6, 2)) for number in range(5)])
    parameters = {"Re": [100.0, 200.0]}
    with open_writer(fields=fields, scalars=["energy"], parameters=parameters) as writer:
        for n in range(2):
            writer.append(
                {"vorticity": scalars[n], "velocity": vectors[n]}, time=0.1 * n, scalars={"energy": n}
            )
        writer.append(
            {"vorticity": scalars[2:], "velocity": vectors[2:]},
            time=np.array([0.0, 0.1, 0.2]),
            trajectory=1,
            scalars={"energy": np.array([2.0, 3.0, 4.0])},
        )
        assert writer.num_samples == 5
        writer.close(complete=True)
    path = tmp_path / "data.h5"
    assert validate(path) == []
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["fields/vorticity"], scalars)
        np.testing.assert_array_equal(file["fields/velocity"], vectors)
        np.testing.assert_array_equal(file["coordinates/time"], [0.0, 0.1, 0.0, 0.1, 0.2])
        np.testing.assert_array_equal(file["coordinates/trajectory"], [0, 0, 1, 1, 1])
        np.testing.assert_array_equal(file["scalars/energy"], np.arange(5.0))
        assert file["fields/vorticity"].dtype == np.float32
        assert file["coordinates/time"].dtype == np.float64
        assert file["coordinates/trajectory"].dtype == np.int32
    info = read_hdf5_info(path)
    assert info.num_samples == 5
    assert info.num_trajectories == 2
    assert info.scalars == ("energy",)
    assert info.metadata["complete"] is True
    assert info.metadata["boundary_y"] == "wall"
    assert info.fields["velocity"] == ((8, 6, 2), np.float32)
    np.testing.assert_array_equal(info.parameters["Re"], [100.0, 200.0])
    np.testing.assert_array_equal(info.coordinates["y"], np.arange(6))


@pytest.mark.parametrize(
    ("shape", "chunk"), [((128, 128), 1), ((64, 64), 1), ((1024, 1), 16), ((8, 6, 2), 170), ((256, 256), 1)]
)
def test_chunks_hold_one_frame_or_64_kib_of_tiny_ones(
    open_writer: Open, tmp_path: Path, shape: tuple[int, ...], chunk: int
) -> None:
    with open_writer(fields={"a": shape}) as writer:
        writer.append({"a": np.zeros(shape)}, time=0.0)
    with h5py.File(tmp_path / "data.h5", "r") as file:
        assert file["fields/a"].chunks == (chunk, *shape)


@pytest.mark.parametrize("shape", [(70, 64), (16, 16)])
@pytest.mark.parametrize("compression", [None, "lz4", "gzip"])
def test_compression_loses_nothing(
    open_writer: Open, make_frame: Frame, tmp_path: Path, compression: str | None, shape: tuple[int, int]
) -> None:
    frames = np.stack([make_frame(number, shape) for number in range(20)])
    with open_writer(fields={"a": shape}, compression=compression) as writer:
        for number in range(10):
            writer.append({"a": frames[number]}, time=number)
        writer.append({"a": frames[10:]}, time=np.arange(10, 20))
    with open_file(tmp_path / "data.h5") as file:
        np.testing.assert_array_equal(file["fields/a"], frames)


def test_a_compressed_file_opens_in_a_process_without_the_plugin_loaded(write_file: Write) -> None:
    path = write_file(3, compression="lz4")
    code = (
        "from solvers.common.hdf5_utils import open_file\n"
        f"print(open_file({str(path)!r})['fields/vorticity'][2].sum())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with open_file(path) as file:
        assert float(result.stdout) == pytest.approx(float(file["fields/vorticity"][2].sum()))


def test_an_existing_file_is_refused_and_untouched(write_file: Write, open_writer: Open) -> None:
    path = write_file(2)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"--resume or replace it with --overwrite"):
        open_writer()
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["data.h5"]


def test_overwriting_keeps_the_old_file_until_the_first_frame(write_file: Write, open_writer: Open) -> None:
    path = write_file(3)
    writer = open_writer(overwrite=True)
    with h5py.File(path, "r") as file:
        assert len(file["fields/vorticity"]) == 3
    writer.append({"vorticity": np.full((8, 6), 7.0)}, time=0.0)
    with open_file(path) as file:
        assert file["fields/vorticity"][:, 0, 0].tolist() == [7.0]
    writer.close(complete=True)
    assert [item.name for item in path.parent.iterdir()] == ["data.h5"]


def test_a_second_writer_is_kept_away(open_writer: Open, tmp_path: Path) -> None:
    with open_writer() as writer:
        writer.append({"vorticity": np.zeros((8, 6))}, time=0.0)
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            open_writer(overwrite=True)
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            HDF5Writer.resume(tmp_path / "data.h5", num_samples=1)
    HDF5Writer.resume(tmp_path / "data.h5", num_samples=1).close(complete=True)


def test_resume_drops_what_came_after_the_checkpoint(write_file: Write, make_frame: Frame) -> None:
    path = write_file(6)
    with HDF5Writer.resume(path, num_samples=4) as writer:
        assert writer.num_samples == 4
        assert num_samples(open_file(path)) == 4
        assert read_hdf5_info(path).metadata["complete"] is False
        writer.append({"vorticity": make_frame(99)}, time=9.0)
        writer.close(complete=True)
    assert validate(path) == []
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["fields/vorticity"][3], make_frame(3))
        np.testing.assert_array_equal(file["fields/vorticity"][4], make_frame(99))
        np.testing.assert_array_equal(file["coordinates/time"], [0.0, 0.5, 1.0, 1.5, 9.0])


def test_resume_is_possible_while_a_reader_has_the_file_open(write_file: Write) -> None:
    path = write_file(2)
    code = f"import h5py, sys; file = h5py.File({str(path)!r}, 'r'); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        HDF5Writer.resume(path, num_samples=2).close(complete=True)
        reader.communicate()


def test_resume_explains_what_it_cannot_do(write_file: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none; start without --resume"):
        HDF5Writer.resume(tmp_path / "absent.h5", num_samples=0)
    path, foreign = write_file(2), tmp_path / "foreign.h5"
    with h5py.File(foreign, "w", libver=("v110", "v110")) as file:
        file["fields/a"] = np.zeros((2, 4, 4))
    before = path.read_bytes(), foreign.read_bytes()
    with pytest.raises(ValueError, match="checkpoint's 3 frames, found 2"):
        HDF5Writer.resume(path, num_samples=3)
    with pytest.raises(ValueError, match="written by HDF5Writer"):
        HDF5Writer.resume(foreign, num_samples=1)
    assert before == (path.read_bytes(), foreign.read_bytes())  # such as that it is complete


def test_a_finished_file_has_no_reserve_left(write_file: Write) -> None:
    path = write_file(2)
    assert path.stat().st_size < 200_000
    with h5py.File(path, "r") as file:
        assert path.stat().st_size == file.id.get_filesize()


def test_append_names_what_does_not_fit(open_writer: Open) -> None:
    frame = np.zeros((8, 6))
    with open_writer(scalars=["energy"]) as writer:
        with pytest.raises(ValueError, match=r"expected the fields \['vorticity'\], got \['omega'\]"):
            writer.append({"omega": frame}, time=0.0, scalars={"energy": 0.0})
        with pytest.raises(ValueError, match=r"expected shape \(8, 6\), got \(6, 8\)"):
            writer.append({"vorticity": frame.T}, time=0.0, scalars={"energy": 0.0})
        with pytest.raises(ValueError, match="a block of n frames needs n times"):
            writer.append({"vorticity": np.zeros((3, 8, 6))}, time=[0.0, 1.0], scalars={"energy": 0.0})
        with pytest.raises(ValueError, match=r"scalars/energy'\], got the scalars \[\]"):
            writer.append({"vorticity": frame}, time=0.0)
        with pytest.raises(ValueError, match="expected one value or 1"):
            writer.append({"vorticity": frame}, time=0.0, scalars={"energy": np.zeros(2)})
        assert writer.num_samples == 0
    with pytest.raises(ValueError, match="the writer is closed"):
        writer.append({"vorticity": frame}, time=0.0, scalars={"energy": 0.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": {}}, "at least one field"),
        ({"fields": {"a/b": (4, 4)}}, "without '/'"),
        ({"fields": {"a": (4,)}}, r"\(H, W\) or \(H, W, C\)"),
        ({"fields": {"a": (4, 4), "b": (4, 5)}}, "one grid for all fields"),
        ({"coordinates": {"x": np.arange(4)}}, "'y'"),
        ({"coordinates": {"x": np.arange(4), "y": np.arange(5)}}, r"'y' \(4,\), got"),
        ({"compression": "zip"}, "compression: expected one of"),
    ],
)
def test_an_invalid_schema_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {
        "fields": {"a": (4, 4)},
        "coordinates": {"x": np.arange(4), "y": np.arange(4)},
        "metadata": {},
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        HDF5Writer(tmp_path / "data.h5", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        HDF5Writer(
            tmp_path / "absent" / "data.h5",
            fields={"a": (4, 4)},
            coordinates={"x": np.arange(4), "y": np.arange(4)},
            metadata={},
        )
