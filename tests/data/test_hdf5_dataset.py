"""HDF5Dataset: what an item is, which samples there are, normalization, errors."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.data.readers import close_remote_files

RNG = np.random.default_rng(3)
OMEGA = RNG.standard_normal((20, 6, 4)).astype(np.float32)
VELOCITY = RNG.standard_normal((20, 6, 4, 2)).astype(np.float32)


def test_an_item_is_the_frame(write_file) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": OMEGA}))
    assert len(dataset) == dataset.n_samples == 20
    assert dataset.sample_shape == (1, 6, 4)
    assert dataset[3].dtype == torch.float32
    assert torch.equal(dataset[3], torch.from_numpy(OMEGA[3][None]))
    assert torch.equal(dataset[-1], dataset[19])
    assert dataset.times == pytest.approx(0.1 * np.arange(20))
    assert sum(1 for _ in dataset) == 20  # iteration ends by IndexError


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (["velocity", "vorticity"], ("velocity_x", "velocity_y", "vorticity")),
        (["omega", "velocity_y"], ("vorticity", "velocity_y")),
        ("velocity_x", ("velocity_x",)),
    ],
)
def test_fields_become_channels(write_file, fields, names) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": OMEGA, "velocity": VELOCITY}), fields=fields)
    truth = {"vorticity": OMEGA, "velocity_x": VELOCITY[..., 0], "velocity_y": VELOCITY[..., 1]}
    assert dataset.spec.names == names
    expected = np.stack([truth[name][5:8] for name in names], axis=1)
    assert np.array_equal(dataset.__getitems__([5, 6, 7]).stacked.numpy(), expected)


def test_all_fields_by_default_and_omega_in_the_file(write_file) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"omega": OMEGA, "velocity": VELOCITY}))
    assert sorted(dataset.spec.names) == ["velocity_x", "velocity_y", "vorticity"]
    channel = dataset.spec.channel("omega")
    assert torch.equal(dataset[2][channel], torch.from_numpy(OMEGA[2]))


def test_missing_field_lists_what_there_is(write_file) -> None:
    path = write_file("a.h5", {"vorticity": OMEGA, "velocity": VELOCITY})
    with pytest.raises(ValueError, match=r"a\.h5.*'pressure'.*vorticity"):
        HDF5Dataset(path, fields=["pressure"])


def test_getitems_keeps_the_order_asked_for(write_file) -> None:
    path = write_file("a.h5", {"vorticity": OMEGA, "velocity": VELOCITY})
    dataset = HDF5Dataset(path)
    indices = [7, 3, 4, 5, 19, -1, 3, 0, 6]
    items = dataset.__getitems__(indices)
    assert all(torch.equal(item, dataset[index]) for item, index in zip(items, indices, strict=True))
    with pytest.raises(IndexError):
        dataset.__getitems__([0, 20])


def test_collating_does_not_copy(write_file) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": OMEGA}))
    items = dataset.__getitems__([4, 2])
    batch = items.stacked
    assert batch.data_ptr() == items[0].data_ptr()
    assert torch.utils.data.default_collate(items).data_ptr() == items[0].data_ptr()
    assert torch.equal(batch, torch.utils.data.default_collate(list(items)))
    assert torch.equal(torch.utils.data.default_collate([dataset[4], dataset[2]]), batch)


def test_range_of_frames(write_file) -> None:
    path = write_file("a.h5", {"vorticity": OMEGA})
    dataset = HDF5Dataset(path, sample_start=5, sample_stop=1000)
    assert len(dataset) == 15
    assert np.array_equal(dataset[0][0], OMEGA[5])
    assert dataset.times[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("start", "stop"), [(20, None), (5, 5), (-1, None)])
def test_empty_range(write_file, start, stop) -> None:
    with pytest.raises(ValueError, match=r"a\.h5.*20 frames"):
        HDF5Dataset(write_file("a.h5", {"vorticity": OMEGA}), sample_start=start, sample_stop=stop)


def test_files_are_concatenated(write_file, tmp_path: Path) -> None:
    paths = [
        write_file("b1.h5", {"vorticity": OMEGA[:8]}, trajectory=[0] * 5 + [1] * 3),
        write_file("b2.h5", {"vorticity": OMEGA[8:]}, trajectory=[1] * 12),
    ]
    for data_path in (paths, str(tmp_path / "b*.h5"), [Path(path) for path in paths]):
        dataset = HDF5Dataset(data_path)
        assert np.array_equal(dataset.__getitems__(list(range(20))).stacked[:, 0], OMEGA)
        assert np.array_equal(dataset.__getitems__([9, 7, 8]).stacked[:, 0], OMEGA[[9, 7, 8]])
        assert dataset.trajectories.tolist() == [0] * 5 + [1] * 3 + [2] * 12
    dataset = HDF5Dataset(paths, sample_start=6, sample_stop=10)
    assert np.array_equal(dataset.__getitems__(list(range(4))).stacked[:, 0], OMEGA[6:10])


def test_files_must_fit_together(write_file) -> None:
    paths = [write_file("a.h5", {"vorticity": OMEGA}), write_file("b.h5", {"vorticity": OMEGA[:, :4]})]
    with pytest.raises(ValueError, match=r"b\.h5 does not fit .*a\.h5"):
        HDF5Dataset(paths)


def test_url(write_file) -> None:
    path = write_file("a.h5", {"vorticity": OMEGA})
    for url in (f"file://{path}", f"file://{path[:-4]}*.h5"):
        assert np.array_equal(HDF5Dataset(url)[7][0], OMEGA[7])


def test_remote_files_are_closed_before_the_interpreter_goes(write_file) -> None:
    dataset = HDF5Dataset(f"file://{write_file('a.h5', {'vorticity': OMEGA})}")
    file = dataset._handles.file(0).file
    assert file is not None
    assert file
    close_remote_files()  # registered with atexit: HDF5 would read through a python that is no more
    assert not file


def test_statistics(write_file) -> None:
    # A mean far above the spread: naive sums of squares in float32 would lose all digits.
    fields = {"a": OMEGA + 1000, "b": 1e-3 * OMEGA}
    dataset = HDF5Dataset(write_file("a.h5", fields), normalize=True)
    for i, values in enumerate(fields.values()):
        assert dataset.mean[i].item() == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
        assert dataset.std[i].item() == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
    assert dataset.mean.shape == dataset.std.shape == (2, 1, 1)
    x = torch.from_numpy(np.stack([values[4] for values in fields.values()]))
    assert torch.equal(dataset[4], dataset.normalize(x))


def test_statistics_of_the_range_only(write_file) -> None:
    values = np.concatenate([OMEGA, OMEGA + 50])
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": values}), sample_stop=20)
    assert dataset.mean.item() == pytest.approx(OMEGA.mean(), abs=1e-5)


def test_constant_field_is_not_divided_by_zero(write_file, caplog) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"a": np.full((4, 6, 4), 0.1, np.float32)}), normalize=True)
    assert dataset.std.item() == 1
    assert dataset[0].abs().max() == 0
    assert "constant" in caplog.text


def test_windows_stay_in_their_trajectory(write_file) -> None:
    trajectory = [0] * 7 + [1] * 3 + [2] * 10
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": OMEGA}, trajectory), n_steps=3, stride=2)
    assert dataset.sample_shape == (3, 1, 6, 4)
    starts = [0, 1, 2, 10, 11, 12, 13, 14, 15]  # a window spans 5 frames; trajectory 1 is too short
    assert len(dataset) == len(starts)
    for i, start in enumerate(starts):
        assert np.array_equal(dataset[i][:, 0], OMEGA[start : start + 5 : 2])
        assert dataset.trajectories[i] == trajectory[start]
        assert dataset.times[i] == pytest.approx(0.1 * np.arange(start, start + 5, 2))
    batch = dataset.__getitems__([5, 1]).stacked
    assert torch.equal(batch, torch.stack([dataset[5], dataset[1]]))


def test_windows_of_interleaved_trajectories(write_file) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": OMEGA[:6]}, [0, 1, 0, 1, 0, 1]), n_steps=2)
    frames = [[0, 2], [1, 3], [2, 4], [3, 5]]
    assert all(np.array_equal(dataset[i][:, 0], OMEGA[pair]) for i, pair in enumerate(frames))
    assert len(dataset) == len(frames)


def test_windows_lie_inside_the_range_and_file(write_file) -> None:
    paths = [write_file("a.h5", {"vorticity": OMEGA[:8]}), write_file("b.h5", {"vorticity": OMEGA[8:]})]
    dataset = HDF5Dataset(paths, n_steps=3, sample_start=4, sample_stop=12)
    assert [float(dataset[i][0, 0, 0, 0]) for i in range(len(dataset))] == OMEGA[[4, 5, 8, 9], 0, 0].tolist()


def test_windows_longer_than_every_trajectory(write_file) -> None:
    path = write_file("a.h5", {"vorticity": OMEGA}, [0] * 12 + [1] * 8)
    with pytest.raises(ValueError, match=r"a\.h5.*span 13 frames.*has 12"):
        HDF5Dataset(path, n_steps=13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_name_file_and_frame(write_file, bad) -> None:
    values = OMEGA.copy()
    values[11, 2, 3] = bad
    dataset = HDF5Dataset([write_file("a.h5", {"a": OMEGA}), write_file("b.h5", {"a": values})])
    dataset.__getitems__([30, 32])
    with pytest.raises(ValueError, match=r"b\.h5: a holds NaN or Inf in frame 11"):
        dataset.__getitems__([3, 31, 30])


def test_huge_values_are_not_mistaken_for_inf(write_file) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"a": np.full((2, 6, 4), 3e38, np.float32)}))
    assert dataset[1].max() == np.float32(3e38)


def test_truncated_file(write_file, tmp_path: Path) -> None:
    path = Path(write_file("a.h5", {"vorticity": np.repeat(OMEGA, 50, axis=0)}))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.h5.*again"):
        HDF5Dataset(cut)[900]


def test_file_cut_after_it_was_opened(write_file) -> None:
    path = Path(write_file("a.h5", {"vorticity": np.repeat(OMEGA, 500, axis=0)}))
    dataset = HDF5Dataset(path)
    assert dataset[0].shape == (1, 6, 4)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"a\.h5.*truncated"):
        dataset[9999]


def test_ragged_fields(tmp_path: Path) -> None:
    path = tmp_path / "ragged.h5"
    with h5py.File(path, "w") as file:
        file["fields/a"] = np.zeros((3, 6, 4), np.float32)
        file["fields/b"] = np.zeros((3, 6, 5), np.float32)
        file["fields/c"] = np.zeros((2, 6, 4), np.float32)
        file["coordinates/x"], file["coordinates/y"] = np.arange(6.0), np.arange(4.0)
    with pytest.raises(ValueError, match=r"ragged\.h5.*different grids"):
        HDF5Dataset(path, fields=["a", "b"])
    with pytest.raises(ValueError, match=r"ragged\.h5.*/fields/a 3, /fields/c 2"):
        HDF5Dataset(path, fields=["a", "c"])
    assert len(HDF5Dataset(path, fields=["a"])) == 3
    with h5py.File(path, "r+") as file:
        file["coordinates/time"] = np.arange(4.0)
    with pytest.raises(ValueError, match=r"ragged\.h5.*time 4"):
        HDF5Dataset(path, fields=["a"])
    with h5py.File(path, "r+") as file:
        file.create_group("metadata").attrs["complete"] = False  # still being written
    assert len(HDF5Dataset(path, fields=["a"])) == 3


def test_no_frames_yet(tmp_path: Path) -> None:
    path = tmp_path / "empty.h5"
    with h5py.File(path, "w") as file:
        file["fields/a"] = np.zeros((0, 6, 4), np.float32)
    with pytest.raises(ValueError, match=r"empty\.h5: no frames"):
        HDF5Dataset(path)


def test_grid_and_coordinates_disagree(tmp_path: Path) -> None:
    path = tmp_path / "grid.h5"
    with h5py.File(path, "w") as file:
        file["fields/a"] = np.zeros((3, 6, 4), np.float32)
        file["coordinates/x"], file["coordinates/y"] = np.arange(4.0), np.arange(6.0)
    with pytest.raises(ValueError, match=r"grid\.h5: coordinates/x has 4 entries.* 6"):
        HDF5Dataset(path)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.h5"):
        HDF5Dataset(tmp_path / "none.h5")
    with pytest.raises(ValueError, match=r"is a folder.*\*\.h5"):
        HDF5Dataset(tmp_path)
    with pytest.raises(ValueError, match="no file matches"):
        HDF5Dataset(str(tmp_path / "*.h5"))
    with pytest.raises(ValueError, match="empty list"):
        HDF5Dataset([])
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"text\.h5"):
        HDF5Dataset(tmp_path / "text.h5")
