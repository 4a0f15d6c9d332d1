"""The command itself: MPI, signals from outside, messages, and life without Dedalus."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.checkpoint import load_checkpoint
from solvers.rayleigh_benard.run_solver import main, read_arguments

MODULE = "solvers.rayleigh_benard.run_solver"
SMALL = [
    "--rayleigh", "1e4", "--dT", "100", "--resolution", "16x12", "--stop_sim_time", "0.5",
    "--snapshot_dt", "0.125",
]  # fmt: skip
# A process that has used MPI leaves its own settings only in the C environment; this one is clean.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",  # a waiting rank must not starve the others of a busy machine
}


@pytest.fixture(scope="module")
def dedalus() -> None:
    """Skips where Dedalus is missing."""
    pytest.importorskip("solvers.rayleigh_benard.generate_rbc", exc_type=ImportError)


def command(folder: Path, *arguments: str, ranks: int = 1) -> list[str]:
    """Command line of a small run."""
    launcher = [] if ranks == 1 else ["mpirun", "--oversubscribe", "-n", str(ranks)]
    return [*launcher, sys.executable, "-m", MODULE, "--output_dir", str(folder), *SMALL, *arguments]


def execute(folder: Path, *arguments: str, ranks: int = 1) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        command(folder, *arguments, ranks=ranks), env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def wait_for_frames(path: Path, count: int) -> None:
    """Until the growing file holds `count` frames."""
    for _ in range(600):
        if path.exists():
            with h5py.File(path, "r") as file:
                if len(file["coordinates/time"]) >= count:
                    return
        time.sleep(0.1)
    pytest.fail(f"no {count} frames after a minute")


def state(folder: Path) -> dict[str, np.ndarray]:
    """Return the final coefficients."""
    return dict(load_checkpoint(folder / "checkpoint.npz").arrays)


def assert_close(first_run: Path, second_run: Path) -> None:
    """Compare final states, frames and scalars of two runs, to 1e-10."""
    one, two = state(first_run), state(second_run)
    assert one.keys() == two.keys() >= {"b", "u", "p"}
    for name in ("b", "u", "p"):
        np.testing.assert_allclose(
            two[name], one[name], rtol=0, atol=1e-10 * np.abs(one[name]).max(), err_msg=name
        )
    with h5py.File(first_run / "output.h5") as first, h5py.File(second_run / "output.h5") as second:
        for name in ("coordinates/time", "coordinates/x", "coordinates/y", "scalars/dt"):
            np.testing.assert_array_equal(first[name], second[name])
        for name in first["fields"]:
            np.testing.assert_allclose(first["fields"][name], second["fields"][name], rtol=1e-6, atol=1e-5)


@pytest.fixture(scope="module")
def two_ranks(dedalus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole run on two ranks; the rows of its log appear once, not once a rank."""
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun on this machine")
    folder = tmp_path_factory.mktemp("two_ranks")
    result = execute(folder, ranks=2)
    assert result.returncode == 0, result.stderr
    assert sum("iteration 0," in line for line in result.stderr.splitlines()) == 1, result.stderr
    assert "Building subproblem" not in result.stdout
    return folder


def test_one_rank_and_two_give_the_same(tmp_path: Path, two_ranks: Path) -> None:
    """To 1e-10, noise, frames, scalars and final state."""
    assert main(["--output_dir", str(tmp_path), *SMALL]) == 0
    assert_close(tmp_path, two_ranks)


@pytest.mark.slow
def test_one_rank_and_two_of_a_multistep_scheme(tmp_path: Path, two_ranks: Path) -> None:
    """Its history is divided among the ranks, too."""
    scheme = ("--timestepper", "SBDF2")
    assert execute(tmp_path / "2", *scheme, ranks=2).returncode == 0
    assert main(["--output_dir", str(tmp_path / "1"), *SMALL, *scheme]) == 0
    assert_close(tmp_path / "1", tmp_path / "2")


def test_one_rank_cannot_leave_the_other_waiting(dedalus: None) -> None:
    """An exception on one rank only ends the run."""
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun on this machine")
    code = """
from mpi4py import MPI
from solvers.rayleigh_benard.simulate import abort_on_surprise, largest
abort_on_surprise(MPI.COMM_WORLD)
if MPI.COMM_WORLD.rank == 1:
    raise RuntimeError("surprise")
largest(MPI.COMM_WORLD, 0)
"""
    launcher = ["mpirun", "--oversubscribe", "-n", "2"]
    result = subprocess.run(
        [*launcher, sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode != 0
    assert "surprise" in result.stderr


@pytest.mark.slow
def test_kill_under_mpi_and_resume(tmp_path: Path, two_ranks: Path) -> None:
    """SIGKILL to both ranks of two: a readable file, and a continuation equal to the run without it."""
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc to find its ranks in")
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(killed, "--stop_sim_time", "1000", ranks=2),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_frames(killed / "output.h5", 3)
    for rank in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(rank), signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    result = execute(killed, "--resume", ranks=2)
    assert result.returncode == 0, result.stderr
    for name, values in state(two_ranks).items():
        np.testing.assert_array_equal(state(killed)[name], values, err_msg=name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_from_outside(tmp_path: Path, dedalus: None, number: signal.Signals) -> None:
    """Exit code 128 + signal with a checkpoint beside the frames."""
    process = subprocess.Popen(
        command(tmp_path, "--stop_sim_time", "1000"), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    wait_for_frames(tmp_path / "output.h5", 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert (tmp_path / "checkpoint.npz").exists()
    assert "Traceback" not in errors


def test_resume_remembers_the_parameters(
    tmp_path: Path, dedalus: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the new end is given; what would make it another run is refused by name."""
    assert main(["--output_dir", str(tmp_path), *SMALL, "--fields", "buoyancy", "velocity"]) == 0
    assert main(["--output_dir", str(tmp_path), "--resume", "--stop_sim_time", "0.75"]) == 0
    with h5py.File(tmp_path / "output.h5", "r") as file:
        assert file["fields/velocity"].shape == (7, 16, 12, 2)
        assert file["metadata"].attrs["stop_sim_time"] == 0.75
    assert main(["--output_dir", str(tmp_path), "--resume", "--prandtl", "7"]) == 1
    assert "prandtl: 1.0 in the checkpoint, 7.0 now" in capsys.readouterr().err


def test_second_run_is_refused(tmp_path: Path, dedalus: None, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1, nothing touched."""
    output = tmp_path / "output.h5"
    output.write_bytes(b"precious")
    assert main(["--output_dir", str(tmp_path), *SMALL]) == 1
    assert "exists: continue it with --resume or replace it with --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == b"precious"


def test_bad_resolution_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is imported or written."""
    assert main(["--output_dir", str(tmp_path / "new"), "--resolution", "63x32"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: resolution: expected")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_without_dedalus(tmp_path: Path) -> None:
    """The command names the install line at once; configuration, grids and diagnostics still import."""
    code = f"""
import sys
sys.modules["dedalus"] = None
import solvers.rayleigh_benard.config, solvers.rayleigh_benard.grids, solvers.rayleigh_benard.initial
import solvers.rayleigh_benard.diagnostics, solvers.rayleigh_benard.stepsize, solvers.rayleigh_benard.output
from {MODULE} import main
sys.exit(main(["--output_dir", {str(tmp_path / "new")!r}]))
"""
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: Dedalus 3 is missing")
    assert "libopenmpi-dev" in result.stderr
    assert "pip install" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_help_without_dedalus_and_torch() -> None:
    """--help answers without numpy."""
    code = f"""
import sys
from {MODULE} import main
try:
    main(["--help"])
finally:
    print([name for name in ("dedalus", "mpi4py", "torch", "numpy") if name in sys.modules], file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "[]\n")
    assert "--safety_factor" in result.stdout


def test_original_flags() -> None:
    """The command lines of the original keep their meaning."""
    flags = (
        "--output_dir o --rayleigh 1e6 --prandtl 1.0 --dT 1.0 --resolution 512x128 --seed 42 --init default "
        "--safety_factor 32 --stop_sim_time 50 --snapshot_dt 0.25 --log_level INFO"
    )
    config = read_arguments(flags.split()).flow
    assert (config.rayleigh, config.resolution, config.safety_factor) == (1e6, (512, 128), 32.0)
    assert config.num_intervals == 200
