"""Trajectories that start alike stay together; the same data twice is told or refused."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.convert.commands import convert_family
from gust_torch.convert.output import Options

SWEEP = (0.01, 0.1, 1.0)


@pytest.fixture
def sweep(sources) -> None:
    """Files of one family that begin with the same ten states, as PDEBench's do."""
    for number, nu in enumerate(SWEEP):
        with h5py.File(sources.burgers(nu=nu, seed=0), "r+") as file:
            file["tensor"][:, 1:] *= number + 1


def held_out_starts(out: Path) -> list[int]:
    """Trajectories of val and test that start as one in train does."""
    first: dict[str, list[bytes]] = {}
    for split in ("train", "val", "test"):
        with h5py.File(out / f"burgers1d_{split}.h5") as file:
            _, places = np.unique(file["coordinates/trajectory"][:], return_index=True)
            first[split] = [file["fields/u"][place].tobytes() for place in places]
    return [sum(state in first["train"] for state in first[split]) for split in ("val", "test")]


def test_states_of_a_sweep_stay_together(sources, out: Path, sweep) -> None:
    result = convert_family("burgers1d", sources.root, out, Options(verify=True))
    assert held_out_starts(out) == [0, 0]
    assert [counts["trajectories"] for counts in result.counts.values()] == [24, 3, 3]
    with h5py.File(out / "burgers1d_val.h5") as file:
        manifest = json.loads(file["split/manifest"].asstr()[()])
        assert (manifest["split_by"], manifest["num_groups"]) == ("group", 10)
        assert file["metadata"].attrs["split_by"] == "group"
        assert sorted(set(file["parameters/nu"])) == sorted(SWEEP)


def test_inputs_of_a_steady_sweep_stay_together(sources, out: Path) -> None:
    path = sources.darcy()
    other = Path(shutil.copy(path, path.with_name("2D_DarcyFlow_beta0.1_Train.hdf5")))
    with h5py.File(other, "r+") as file:
        file["tensor"][...] *= 0.1
        file.attrs["beta"] = 0.1
    convert_family("darcy2d", sources.root, out, Options())
    inputs = {}
    for split in ("train", "val", "test"):
        with h5py.File(out / f"darcy2d_{split}.h5") as file:
            inputs[split] = {frame.tobytes() for frame in file["fields/nu"]}
            assert len(file["fields/nu"]) == 2 * len(inputs[split])
    assert not inputs["train"] & (inputs["val"] | inputs["test"])


def test_a_copy_of_states_without_structure_is_refused(sources, out: Path) -> None:
    path = sources.burgers()
    with h5py.File(path, "r+") as file:
        file["tensor"][:, 0] = 0.5
    shutil.copy(path, path.with_name("other_Nu0.01.hdf5"))
    with pytest.raises(ValueError, match="same data"):
        convert_family("burgers1d", sources.root, out, Options())


def test_split_by_trajectory(sources, out: Path, sweep) -> None:
    convert_family("burgers1d", sources.root, out, Options(split_by="trajectory"))
    assert held_out_starts(out) != [0, 0]


@pytest.mark.parametrize("by", ["group", "trajectory"])
@pytest.mark.parametrize("how", ["copy", "link", "hard link", "repacked", "part"])
def test_the_same_file_twice_is_refused(sources, out: Path, how: str, by) -> None:
    path = sources.burgers()
    other = path.with_name(f"{path.stem} (1).hdf5")
    if how == "copy":
        shutil.copy(path, other)
    elif how == "link":
        other.symlink_to(path)
    elif how == "hard link":
        os.link(path, other)
    else:
        with h5py.File(path) as old, h5py.File(other, "w") as new:
            for name, item in old.items():
                part = slice(2, 5) if how == "part" and name == "tensor" else slice(None)
                new.create_dataset(name, data=item[part], compression="gzip")
            new.attrs.update(old.attrs)
    with pytest.raises(ValueError, match=r"Nu0.01 \(1\).hdf5|Nu0.01.hdf5") as caught:
        convert_family("burgers1d", sources.root, out, Options(split_by=by))
    assert str(path) in str(caught.value)
    assert str(other) in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("by", ["group", "trajectory"])
def test_repeats_within_a_file_are_told_and_stay_together(sources, out: Path, caplog, by) -> None:
    with h5py.File(sources.burgers(), "r+") as file:
        file["tensor"][5:] = file["tensor"][:5]
    convert_family("burgers1d", sources.root, out, Options(split_by=by))
    assert "5 trajectories repeat others (sample 5 is sample 0)" in caplog.text
    assert held_out_starts(out) == [0, 0]


def test_one_state_is_split_by_trajectory_and_told(sources, out: Path, caplog) -> None:
    with h5py.File(sources.burgers(), "r+") as file:
        file["tensor"][:, 0] = file["tensor"][0, 0]
    result = convert_family("burgers1d", sources.root, out, Options())
    assert [counts["trajectories"] for counts in result.counts.values()] == [8, 1, 1]
    assert "all 10 trajectories start from one state" in caplog.text
    with h5py.File(out / "burgers1d_val.h5") as file:
        assert file["metadata"].attrs["split_by"] == "trajectory"


def test_a_start_without_structure_says_nothing(sources, out: Path) -> None:
    with h5py.File(sources.burgers(), "r+") as file:
        file["tensor"][:, 0] = 0.5
    result = convert_family("burgers1d", sources.root, out, Options())
    assert [counts["trajectories"] for counts in result.counts.values()] == [8, 1, 1]


def test_solutions_that_meet_in_three_frames_are_not_the_same(sources, out: Path) -> None:
    sources.burgers(nu=0.01, seed=0)
    with h5py.File(sources.burgers(nu=0.1, seed=0), "r+") as file:
        file["tensor"][:, 1] += 1  # not the first, the middle or the last
    convert_family("burgers1d", sources.root, out, Options())
    assert held_out_starts(out) == [0, 0]
