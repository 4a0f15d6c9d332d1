"""Files of a task by split."""

from pathlib import Path

import pytest

from solvers.common.splits import find_split, find_splits, find_tasks, split_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b_train.h5", "b_val.h5", "m_train.zarr", "other.h5"):
        (tmp_path / name).touch()
    return tmp_path


def test_finds_what_is_there(root: Path) -> None:
    assert find_split(root, "m", "train") == root / "m_train.zarr"
    assert list(find_splits(root, "b")) == ["train", "val"]
    assert find_splits(root, "b", ("val",)) == {"val": split_path(root, "b", "val")}
    assert find_splits(root, "c") == {}
    assert find_tasks(root) == ["b", "m"]


def test_names_what_is_missing(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no .*c_train.h5, c_test.h5 \(or .zarr\); convert the task first"):
        find_splits(root, "c", ("train", "test"))


def test_two_files_of_one_split(root: Path) -> None:
    (root / "b_val.zarr").mkdir()
    with pytest.raises(ValueError, match="there are both"):
        find_split(root, "b", "val")
    assert find_split(root, "b", "train").name == "b_train.h5"
