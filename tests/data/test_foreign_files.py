"""Files of other programs: names, parameters and times where they have them; nothing read wrongly,
nothing twice.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.data.datamodule import FieldDataModule
from gust_torch.data.hdf5_dataset import HDF5Dataset

FRAMES = np.random.default_rng(5).standard_normal((20, 8, 6)).astype(np.float32)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a bare file of fields, coordinates and metadata."""

    def written(name: str = "a.h5", metadata: dict[str, object] | None = None, **datasets: object) -> Path:
        if metadata is None:
            metadata = {}
        with h5py.File(tmp_path / name, "w") as file:
            file["coordinates/x"], file["coordinates/y"] = np.arange(8.0), np.arange(6.0)
            file.create_group("metadata").attrs.update(metadata)
            for key, values in datasets.items():
                file[key.replace("__", "/")] = values
        return tmp_path / name

    return written


def read(dataset: HDF5Dataset) -> np.ndarray:
    """All items."""
    return dataset.__getitems__(range(len(dataset))).stacked.numpy()


def test_two_names_of_one_dataset_are_one_channel(write: Write) -> None:
    path = write(fields__omega=FRAMES)
    with h5py.File(path, "r+") as file:
        file["fields/vorticity"] = file["fields/omega"]
        file["fields/soft"] = h5py.SoftLink("/fields/omega")
    for fields in (["omega", "vorticity"], "omega", "vorticity"):
        dataset = HDF5Dataset(path, fields=fields)
        assert dataset.spec.names == ("vorticity",)
        assert np.array_equal(read(dataset)[:, 0], FRAMES)


def test_a_name_means_the_dataset_of_that_name(write: Write) -> None:
    path = write(fields__omega=FRAMES, fields__vorticity=FRAMES + 7)
    assert np.array_equal(read(HDF5Dataset(path, fields="omega"))[:, 0], FRAMES)
    assert np.array_equal(read(HDF5Dataset(path, fields="vorticity"))[:, 0], FRAMES + 7)
    with pytest.raises(ValueError, match=r"a\.h5: /fields/omega and /fields/vorticity are different data"):
        HDF5Dataset(path)


def test_one_component_is_a_scalar_field(write: Write) -> None:
    dataset = HDF5Dataset(write(fields__vorticity=FRAMES[..., None]))
    assert dataset.spec.names == ("vorticity",)
    assert np.array_equal(read(dataset)[:, 0], FRAMES)


@pytest.mark.parametrize("beside", [np.zeros((8, 6)), np.arange(20.0), np.float32(1), h5py.SoftLink("/no")])
def test_what_was_not_asked_for_is_not_looked_at(write: Write, beside: object) -> None:
    path = write(fields__v=FRAMES, fields__beside=beside)
    assert np.array_equal(read(HDF5Dataset(path, fields="v"))[:, 0], FRAMES)
    with pytest.raises(ValueError, match="beside"):
        HDF5Dataset(path)


def test_parameters_and_times_out_of_the_metadata(write: Write) -> None:
    metadata = {"Re": 1000.0, "alpha": 0.1, "beta": 20, "tSave": 0.5, "dt": 1e-3, "solver": "py2d"}
    dataset = HDF5Dataset(write(metadata=metadata, fields__omega=FRAMES))
    values = {name: value.tolist() for name, value in dataset.parameters.items()}
    assert values == {"Re": [1000.0], "alpha": [0.1], "beta": [20.0]}
    assert np.array_equal(dataset.times, 0.5 * np.arange(20))
    dataset = HDF5Dataset(write(metadata={"rayleigh": 1e6, "prandtl": 1.0, "dT": 1.0}, fields__b=FRAMES))
    assert set(dataset.parameters) == {"rayleigh", "prandtl", "dT"}
    assert np.isnan(dataset.times).all()
    dataset = HDF5Dataset(write(metadata=metadata, fields__omega=FRAMES, parameters__nu=[1e-3]))
    assert set(dataset.parameters) == {"nu"}  # the format's own place


def test_a_parameter_that_is_no_number_is_left_out_with_a_word(write: Write, caplog) -> None:
    path = write(fields__v=FRAMES, parameters__Re=[1.0], parameters__forcing="kolmogorov")
    assert set(HDF5Dataset(path).parameters) == {"Re"}
    assert "parameters/forcing" in caplog.text


def test_windows_never_step_back_in_time(write: Write, caplog) -> None:
    times = np.r_[np.arange(10), np.arange(10)] * 0.1
    dataset = HDF5Dataset(write(fields__v=FRAMES, coordinates__time=times), n_steps=3)
    assert (np.diff(dataset.times, axis=1) > 0).all()
    assert len(dataset) == 16
    assert "steps back" in caplog.text
    with pytest.raises(ValueError, match="steps back"):
        HDF5Dataset(write(fields__v=FRAMES, coordinates__time=np.arange(20.0)[::-1]), n_steps=2)


def test_uneven_steps_are_told(write: Write, caplog) -> None:
    HDF5Dataset(write(fields__v=FRAMES, coordinates__time=np.arange(20.0) ** 2), n_steps=2)
    assert "uneven" in caplog.text


@pytest.mark.parametrize(("value", "attribute"), [(-999.0, "_FillValue"), (9.96921e36, "missing_value")])
def test_missing_cells_are_refused_with_their_place(write: Write, value: float, attribute: str) -> None:
    frames = FRAMES.copy()
    frames[3, 2:4, 5] = value
    path = write(fields__v=frames)
    with h5py.File(path, "r+") as file:
        file["fields/v"].attrs[attribute] = np.float32(value)
    dataset = HDF5Dataset(path)
    assert np.array_equal(dataset[2][0], FRAMES[2])
    with pytest.raises(ValueError, match=r"a\.h5: v holds 2 missing cells .* first at \(2, 5\), in frame 3"):
        read(dataset)


def test_values_of_netcdf_that_nobody_wrote(write: Write) -> None:
    frames = FRAMES.copy()
    frames[3, 2, 5] = 9.969209968386869e36
    with pytest.raises(ValueError, match="1 missing cells"):
        read(HDF5Dataset(write(fields__v=frames)))


def test_values_beyond_float32(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.h5: /fields/v, frames 0 to 19: .* beyond float32"):
        read(HDF5Dataset(write(fields__v=FRAMES.astype("f8") * 1e300)))


def test_both_ends_of_a_period_are_told(write: Write, caplog) -> None:
    HDF5Dataset(write(fields__v=FRAMES))
    assert "repeat" not in caplog.text
    HDF5Dataset(write(fields__v=np.concatenate([FRAMES[:, :7], FRAMES[:, :1]], axis=1)))
    assert "along the periodic x" in caplog.text
    assert "repeat the first" in caplog.text


def test_a_file_that_is_named_twice(write: Write, tmp_path: Path) -> None:
    path = write(fields__v=FRAMES)
    (tmp_path / "link.h5").symlink_to(path)
    os.link(path, tmp_path / "name.h5")
    for again in (path, tmp_path / "." / "a.h5", tmp_path / "link.h5", tmp_path / "name.h5"):
        with pytest.raises(ValueError, match="is the same file as"):
            HDF5Dataset([path, again])
    with pytest.raises(ValueError, match="is the same file as"):
        HDF5Dataset(str(tmp_path / "*.h5"))


def test_copies_would_validate_what_was_trained_on(write: Write, tmp_path: Path) -> None:
    path = write(fields__v=FRAMES, coordinates__time=np.arange(20.0))
    shutil.copy(path, tmp_path / "b.h5")
    data = FieldDataModule([str(path), str(tmp_path / "b.h5")], val_fraction=0.5)
    with pytest.raises(ValueError, match=r"b\.h5: trajectory 1 repeats trajectory 0, which is in .*a\.h5"):
        data.setup("fit")
    data = FieldDataModule([str(path), str(tmp_path / "b.h5")], val_fraction=0.0)
    data.setup("fit")


def test_common_initial_conditions_are_told(write: Write, caplog) -> None:
    frames = FRAMES.copy()
    frames[10] = frames[0]
    ids = np.repeat([0, 1], 10)
    data = FieldDataModule(str(write(fields__v=frames, coordinates__trajectory=ids)), val_fraction=0.5)
    data.setup("fit")
    assert "1 of 1 validation trajectories start with the same frame" in caplog.text


def test_more_files_than_the_system_allows_open(write: Write, tmp_path: Path) -> None:
    for i in range(60):
        write(f"many{i:02d}.h5", fields__v=FRAMES + i, fields__w=FRAMES.astype("f8"))
    code = f"""
import resource
from gust_torch import HDF5Dataset
dataset = HDF5Dataset({str(tmp_path / "many*.h5")!r})
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
print(len(dataset.__getitems__(range(0, 1200, 7))), len(dataset.__getitems__(range(0, 1200, 7))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "172 172\n", result.stderr


def test_a_file_that_was_written_to_since_is_looked_at_again(write: Write) -> None:
    path = write(fields__v=FRAMES)
    dataset = HDF5Dataset(path)
    dataset.close()
    write(fields__w=np.zeros(9), fields__v=FRAMES + 1)  # frames lie elsewhere now
    assert np.array_equal(dataset[3][0], FRAMES[3] + 1)
    dataset.close()
    write(fields__v=FRAMES[:5])
    with pytest.raises(ValueError, match="has changed since it was opened"):
        dataset[3]
