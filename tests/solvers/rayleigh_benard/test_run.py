"""Whole runs in this process: the file, restarts, blow-ups."""

import dataclasses
import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("solvers.rayleigh_benard.generate_rbc", exc_type=ImportError)

from solvers.common.checkpoint import load_checkpoint
from solvers.common.files import WriterLock
from solvers.common.hdf5_utils import read_hdf5_info, validate
from solvers.rayleigh_benard import config as config_module
from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.diagnostics import SCALARS
from solvers.rayleigh_benard.run_solver import main
from solvers.rayleigh_benard.simulate import Run

# Small, and lively from the start: dT = 100 shortens the free-fall time to 0.1.
SMALL = RBCConfig(
    rayleigh=1e4, dT=100.0, resolution=(16, 12), stop_sim_time=1.0, snapshot_dt=0.125, grid="uniform"
)


def contents(folder: Path) -> dict[str, np.ndarray]:
    """All datasets of the output."""
    datasets: dict[str, np.ndarray] = {}
    with h5py.File(folder / "output.h5") as file:
        file.visititems(
            lambda name, item: datasets.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return datasets


def assert_same(first: Path, second: Path) -> None:
    """Return outputs and final states agree to the last bit."""
    one, two = contents(first), contents(second)
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)
    states = [load_checkpoint(folder / "checkpoint.npz").arrays for folder in (first, second)]
    for name, values in states[0].items():
        np.testing.assert_array_equal(values, states[1][name], err_msg=name)


class Stop(Run):
    """A run that signals itself after some iterations."""

    after: int

    def _probe(self) -> None:
        if self.clock.iteration >= self.after:
            signal.raise_signal(signal.SIGTERM)
        super()._probe()


class Die(Run):
    """A run that is killed after some iterations, as far as its files can tell."""

    after: int

    def _probe(self) -> None:
        if self.clock.iteration >= self.after:
            raise KeyboardInterrupt
        super()._probe()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert Run(SMALL, folder).execute() == 0
    return folder


def test_file(uninterrupted: Path) -> None:
    """A valid file with exact times, first and last frame, metadata and scalars."""
    path = uninterrupted / "output.h5"
    assert validate(path) == []
    info, data = read_hdf5_info(path), contents(uninterrupted)
    np.testing.assert_array_equal(data["coordinates/time"], np.arange(9) * 0.125)
    assert info.fields.keys() == {"buoyancy", "vorticity"}
    assert info.fields["vorticity"][0] == (16, 12)
    assert set(info.scalars) == set(SCALARS)
    expected = {
        "solver": "rayleigh_benard", "boundary_x": "periodic", "boundary_y": "wall", "grid_y": "uniform",
        "length_x": 4.0, "length_y": 1.0, "rayleigh": 1e4, "prandtl": 1.0, "dT": 100.0, "seed": 42,
        "resolution": "16x12", "timestepper": "RK222", "snapshot_dt": 0.125, "complete": True,
    }  # fmt: skip
    assert {name: info.metadata[name] for name in expected} == expected
    assert info.parameters["rayleigh"].tolist() == [1e4]
    # It has begun to move, with a dt that divides the interval, and every number is finite.
    assert data["scalars/reynolds_max"][-1] > 10
    assert data["scalars/dt"].max() <= SMALL.max_dt
    np.testing.assert_allclose(np.round(0.125 / data["scalars/dt"]) * data["scalars/dt"], 0.125)
    assert all(np.isfinite(values).all() for values in data.values())
    # It began as dT (1 - z) with noise of 1e-3 dT, at rest, with unit Nusselt numbers to that accuracy.
    z = (np.arange(12) + 0.5) / 12
    noise = data["fields/buoyancy"][0] / 100 - (1 - z)
    assert 1e-4 < noise.std() < 2e-3
    assert not data["fields/vorticity"][0].any()
    assert data["scalars/nusselt_bottom"][0] == pytest.approx(1, abs=0.05)


def test_all_fields_on_the_chebyshev_grid(tmp_path: Path) -> None:
    """Pressure and velocity on request; Nx x Nz x 2."""
    fields = ("velocity", "pressure", "vorticity", "buoyancy")
    config = dataclasses.replace(SMALL, fields=fields, grid="chebyshev", stop_sim_time=0.125)
    assert Run(config, tmp_path).execute() == 0
    info = read_hdf5_info(tmp_path / "output.h5")
    assert validate(tmp_path / "output.h5") == []
    assert {name: shape for name, (shape, _) in info.fields.items()} == {
        "velocity": (16, 12, 2), "pressure": (16, 12), "vorticity": (16, 12), "buoyancy": (16, 12),
    }  # fmt: skip
    assert info.metadata["grid_y"] == "chebyshev"


@pytest.mark.parametrize("after", [1, 60])
def test_signal_and_resume(
    uninterrupted: Path, tmp_path: Path, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGTERM between frames: exit code 143 and the flag that continues, then bit for bit the whole run."""
    run = Stop(SMALL, tmp_path)
    run.after = after
    assert run.execute() == 143
    assert "--resume" in caplog.messages[-1]
    assert read_hdf5_info(tmp_path / "output.h5").metadata["complete"] is False
    assert load_checkpoint(tmp_path / "checkpoint.npz").meta["iteration"] == run.clock.iteration
    assert Run(SMALL, tmp_path, resume=True).execute() == 0
    assert_same(uninterrupted, tmp_path)


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_death_and_resume(uninterrupted: Path, tmp_path: Path, checkpoint_seconds: float) -> None:
    """Frames after the last checkpoint are dropped and computed again."""
    run = Die(SMALL, tmp_path, checkpoint_seconds=checkpoint_seconds)
    run.after = 60
    with pytest.raises(KeyboardInterrupt):
        run.execute()
    frames = read_hdf5_info(tmp_path / "output.h5").num_samples
    assert frames > 2
    saved = load_checkpoint(tmp_path / "checkpoint.npz").meta["frame"]
    assert saved == (frames - 1 if checkpoint_seconds == 0 else 0)
    assert Run(SMALL, tmp_path, resume=True).execute() == 0
    assert_same(uninterrupted, tmp_path)


def test_multistep_restart_stays_close(tmp_path: Path) -> None:
    """SBDF2 restarts with one first-order step: close to the uninterrupted run, not equal."""
    config = dataclasses.replace(SMALL, timestepper="SBDF2")
    Run(config, tmp_path / "whole").execute()
    run = Stop(config, tmp_path / "parts")
    run.after = 60
    assert run.execute() == 143
    Run(config, tmp_path / "parts", resume=True).execute()
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    difference = np.abs(whole["fields/buoyancy"] - parts["fields/buoyancy"]).max() / config.dT
    assert 0 < difference < 1e-3


def test_resume_goes_on_longer(uninterrupted: Path, tmp_path: Path) -> None:
    """A finished run continues to a later time; the metadata say so."""
    short = dataclasses.replace(SMALL, stop_sim_time=0.5)
    Run(short, tmp_path).execute()
    assert Run(SMALL, tmp_path, resume=True).execute() == 0
    assert_same(uninterrupted, tmp_path)
    assert read_hdf5_info(tmp_path / "output.h5").metadata["stop_sim_time"] == 1.0
    with pytest.raises(ValueError, match=r"past 0\.5 already"):
        Run(short, tmp_path, resume=True)


def test_refusals(uninterrupted: Path, tmp_path: Path) -> None:
    """An existing output, a checkpoint of other parameters, no checkpoint."""
    with pytest.raises(FileExistsError, match=r"continue it with --resume or replace it with --overwrite"):
        Run(SMALL, uninterrupted)
    with pytest.raises(ValueError, match=r"rayleigh: 10000.0 in the checkpoint, 20000.0 now"):
        Run(dataclasses.replace(SMALL, rayleigh=2e4), uninterrupted, resume=True)
    with pytest.raises(ValueError, match="start without --resume"):
        Run(SMALL, tmp_path, resume=True)


def test_overwrite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The new run replaces the old one, and says at its end what is there and what comes next."""
    short = dataclasses.replace(SMALL, stop_sim_time=0.25)
    Run(short, tmp_path).execute()
    with caplog.at_level("INFO"):
        Run(dataclasses.replace(short, seed=1), tmp_path, overwrite=True).execute()
    assert read_hdf5_info(tmp_path / "output.h5").metadata["seed"] == 1
    assert f"3 frames in {tmp_path / 'output.h5'}; next: python -m" in caplog.messages[-1]


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_blow_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A step far above the stability limit: exit code 1, an error with time, dt and advice, finite frames."""
    monkeypatch.setattr(config_module, "MAX_DT", 5.0)
    monkeypatch.setattr(config_module, "CFL_NUMBER", 1e6)
    arguments = "--rayleigh 1e6 --dT 100 --resolution 16x12 --stop_sim_time 200 --snapshot_dt 0.5"
    assert main(["--output_dir", str(tmp_path), *arguments.split()]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    found = re.match(r"error: the flow .* at time .*, iteration (\d+), dt .*frames.*--safety_factor 2", error)
    assert found is not None, error
    assert int(found[1]) < 400
    data = contents(tmp_path)
    assert len(data["coordinates/time"]) > 1
    assert all(np.isfinite(values).all() for values in data.values())
    assert read_hdf5_info(tmp_path / "output.h5").metadata["complete"] is False


def test_a_second_process_stays_away(tmp_path: Path) -> None:
    """While one has the run."""
    short = dataclasses.replace(SMALL, stop_sim_time=0.25)
    Run(short, tmp_path).execute()
    with WriterLock(tmp_path / "checkpoint.npz"):
        for flags in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(BlockingIOError, match="another process"):
                Run(SMALL, tmp_path, **flags)
    assert Run(SMALL, tmp_path, resume=True).execute() == 0


def test_no_room_for_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that could not be continued."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "checkpoint.npz"))

    monkeypatch.setattr("solvers.rayleigh_benard.simulate.write_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        Run(SMALL, tmp_path).execute()
    assert list(tmp_path.iterdir()) == []
