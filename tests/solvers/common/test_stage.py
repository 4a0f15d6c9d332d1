"""Folders that resume after a kill."""

from pathlib import Path

import pytest

from solvers.common.files import hidden_part, replace_folder
from solvers.common.stage import RECORD, Stage, differences


def test_the_same_request_continues_where_the_last_one_stopped(tmp_path: Path) -> None:
    with Stage(tmp_path / "run", {"seed": 0}) as stage:
        stage.begin()
        stage.record(shards=3)
    with Stage(tmp_path / "run", {"seed": 0}) as stage:
        stage.begin()
        assert stage.progress == {"shards": 3}
        assert not stage.is_done
        stage.finish()
    assert Stage(tmp_path / "run", {"seed": 0}).is_done
    assert not Stage(tmp_path / "run", {"seed": 1}).is_done


def test_another_request_is_refused_by_name_and_replaced_on_demand(tmp_path: Path) -> None:
    with Stage(tmp_path / "run", {"seed": 0, "size": (1, 2)}) as stage:
        stage.begin()
        stage.record(shards=3)
        (stage.folder / "shard").touch()
    other = Stage(tmp_path / "run", {"seed": 1, "size": (1, 2)})
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        other.begin()
    other.begin(overwrite=True)
    assert other.progress == {}
    assert not (other.folder / "shard").exists()
    other.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Stage(tmp_path / "run", {}) as stage:
        stage.begin()
        with pytest.raises(BlockingIOError, match="another process"):
            Stage(tmp_path / "run", {}).begin()


def test_what_no_record_tells_of_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with pytest.raises(ValueError, match="in the way"):
        Stage(tmp_path / "run", {}).begin(overwrite=True)
    (tmp_path / "run" / RECORD).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Stage(tmp_path / "run", {}).begin()
    with Stage(tmp_path / "run", {}) as stage:
        stage.begin(overwrite=True)
        assert stage.progress == {}


def test_a_complete_folder_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "cache"
    for name in ("first", "second"):
        part = hidden_part(target)
        part.mkdir()
        (part / name).touch()
        replace_folder(part, target)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_differences_are_named_down_to_the_value() -> None:
    assert differences({"a": {"b": 1, "c": (1, 2)}, "d": 3}, {"a": {"b": 2, "c": [1, 2]}}) == [
        "a.b: 1 there, 2 now",
        "d: 3 there, absent now",
    ]


def test_a_folder_whose_first_record_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{RECORD}.part").write_text("{")
    with Stage(tmp_path / "run", {}) as stage:
        stage.begin()
