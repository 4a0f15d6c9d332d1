"""The flows of the study: complete after one command, untouched by the next; failures stop no other run."""

import pytest

from gust_torch import study_data
from solvers.common.hdf5_utils import read_hdf5_info

SETS = ("turbulence_16",)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny trajectories in place of the study's."""
    monkeypatch.setattr(study_data, "SEEDS", {SETS[0]: {"train": (1,), "test": (3,)}})
    monkeypatch.setattr(study_data, "SPIN_UP", ("--tTotal", "0.1", "--tSave", "0.1"))
    monkeypatch.setattr(study_data, "FRAMES", ("--tTotal", "0.2", "--tSave", "0.05"))


def test_every_trajectory_is_made_once(tmp_path):
    options = study_data.StudyData(tmp_path, SETS)
    study_data.make_study_data(options)
    files = sorted(tmp_path.glob("turbulence_16/*/*/output.h5"))
    assert [path.parts[-3:-1] for path in files] == [("test", "seed3"), ("train", "seed1")]
    assert {read_hdf5_info(path).num_samples for path in files} == {5}
    times = [path.stat().st_mtime_ns for path in files]
    study_data.make_study_data(options)
    assert [path.stat().st_mtime_ns for path in files] == times


def test_a_failed_run_is_named_and_does_not_stop_the_other(tmp_path):
    damaged = tmp_path / SETS[0] / "train" / "seed1" / "spin_up" / "checkpoint.npz"
    damaged.mkdir(parents=True)
    with pytest.raises(ValueError, match="seed1; the same command"):
        study_data.make_study_data(study_data.StudyData(tmp_path, SETS))
    assert [path.parts[-2] for path in tmp_path.glob("turbulence_16/*/*/output.h5")] == ["seed3"]
    assert (damaged.parent / "run.log").read_text().startswith("error: ")


def test_a_command_line_that_makes_no_sense_is_refused(tmp_path, capsys):
    assert study_data.main(["--output_dir", str(tmp_path), "--workers", "0"]) == 1
    assert "--workers >= 1" in capsys.readouterr().err
