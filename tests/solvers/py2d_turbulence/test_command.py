"""The command as a user types it: output, refusals, signals, restarts, blow-ups."""

import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.checkpoint import load_checkpoint, save_checkpoint
from solvers.common.hdf5_utils import open_file, read_hdf5_info, validate
from solvers.py2d_turbulence import fft, run_solver
from solvers.py2d_turbulence.fft import cached_wisdom_path
from solvers.py2d_turbulence.grid import padded_size
from solvers.py2d_turbulence.initial import random_vorticity

SMALL = ("--NX", "32", "--dt", "0.002", "--tTotal", "0.4", "--tSave", "0.1")
# Long enough to be stopped on the way: 20000 steps, 41 frames.
LONG = ("--NX", "32", "--dt", "0.001", "--tTotal", "20", "--tSave", "0.5", "--Re", "200", "--beta", "0.3")


@pytest.fixture(autouse=True, scope="module")
def _plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One plan cache for all commands of this file, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def whole_run(_plans: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the long run without interruption."""
    output_dir = tmp_path_factory.mktemp("whole")
    assert main(output_dir, *LONG) == 0
    return output_dir


def main(output_dir: Path, *arguments: str) -> int:
    """Return the command in this process."""
    return run_solver.main(["--output_dir", str(output_dir), *arguments])


def command(output_dir: Path, *arguments: str) -> list[str]:
    """Return the command for a process of its own."""
    module = "solvers.py2d_turbulence.run_solver"
    return [sys.executable, "-m", module, "--output_dir", str(output_dir), *arguments]


def frames(output_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vorticity (n, h, w) and times (n,) of an output."""
    with open_file(output_dir / "output.h5") as file:
        return file["fields/vorticity"][:], file["coordinates/time"][:]


def stop_on_the_way(output_dir: Path, arguments: Sequence[str], number: signal.Signals) -> tuple[int, str]:
    """Start a run, sends it a signal once it has written some frames; returns exit code and messages."""
    process = subprocess.Popen(command(output_dir, *arguments), stderr=subprocess.PIPE, text=True)
    output, deadline = output_dir / "output.h5", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if output.exists() and len(frames(output_dir)[1]) >= 8:
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    return process.returncode, messages


def test_output(tmp_path: Path) -> None:
    """Valid common format: t = 0 and the last frame, scalars, parameters, metadata."""
    assert main(tmp_path, *SMALL, "--seed", "3", "--beta", "0.5", "--compression", "lz4") == 0
    path = tmp_path / "output.h5"
    assert validate(path) == []
    info = read_hdf5_info(path)
    assert info.fields == {"vorticity": ((32, 32), np.dtype("float32"))}
    assert info.metadata["complete"] is True
    assert info.metadata["solver"] == "py2d_turbulence"
    expected = {"NX": 32, "dt": 0.002, "seed": 3, "beta": 0.5, "tSave": 0.1, "dtype": "float64"}
    assert {name: info.metadata[name] for name in expected} == expected
    assert info.parameters["nu"].tolist() == [1e-3]
    assert set(info.parameters) == {"Re", "nu", "alpha", "beta", "fkx", "fky"}
    omega, times = frames(tmp_path)
    np.testing.assert_allclose(times, [0.0, 0.1, 0.2, 0.3, 0.4], rtol=1e-14)
    np.testing.assert_allclose(omega[0], random_vorticity(32, 3), atol=1e-5)
    with h5py.File(path) as file:
        np.testing.assert_allclose(
            file["scalars/enstrophy"][:], 0.5 * np.mean(omega.astype(float) ** 2, axis=(1, 2)), rtol=1e-6
        )
        assert set(file["scalars"]) == {
            "energy", "enstrophy", "palinstrophy", "cfl", "energy_injection", "energy_dissipation",
            "enstrophy_injection", "enstrophy_dissipation",
        }  # fmt: skip


def test_same_command_same_bits(tmp_path: Path) -> None:
    """In this process with two threads and in another with one, which takes over the plans of the first."""
    arguments = (*SMALL, "--dtype", "float32")
    assert main(tmp_path / "a", *arguments, "--workers", "2") == 0
    plans = cached_wisdom_path(padded_size(32), "float32")
    before = plans.read_bytes() if fft.pyfftw else b""
    subprocess.run(command(tmp_path / "b", *arguments, "--workers", "1"), check=True, capture_output=True)
    assert not fft.pyfftw or plans.read_bytes() == before
    np.testing.assert_array_equal(frames(tmp_path / "a")[0], frames(tmp_path / "b")[0])


def test_last_frame_is_saved_when_the_cadence_misses_it(tmp_path: Path) -> None:
    """And taken back when the run is extended past it."""
    assert main(tmp_path, "--NX", "16", "--dt", "0.01", "--tTotal", "0.5", "--tSave", "0.2") == 0
    np.testing.assert_allclose(frames(tmp_path)[1], [0.0, 0.2, 0.4, 0.5])
    assert main(tmp_path, "--resume", "--tTotal", "0.8") == 0
    np.testing.assert_allclose(frames(tmp_path)[1], [0.0, 0.2, 0.4, 0.6, 0.8])
    assert read_hdf5_info(tmp_path / "output.h5").metadata["tTotal"] == 0.8


def test_existing_output_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until told otherwise."""
    assert main(tmp_path, *SMALL) == 0
    before = frames(tmp_path)[0]
    assert main(tmp_path, *SMALL, "--seed", "1") == 1
    assert "--resume" in capsys.readouterr().err
    np.testing.assert_array_equal(frames(tmp_path)[0], before)
    assert main(tmp_path, *SMALL, "--seed", "1", "--overwrite") == 0
    assert np.any(frames(tmp_path)[0] != before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--NX", "31"), "NX must be"),
        (("--tSave", "0.0125"), "tSave"),
        (("--workers", "-1"), "--workers"),
        (("--ic_file", "nowhere.mat"), "nowhere.mat"),
        (("--dt", "0.1", "--tSave", "0.1"), "too large for the initial flow"),
        (("--resume",), "checkpoint"),
    ],
)
def test_refusals(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error, exit code 1, nothing written."""
    assert main(tmp_path / "new", *SMALL, *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "new").exists()


def test_help_names_every_flag_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the original among them."""
    with pytest.raises(SystemExit) as caught:
        run_solver.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "output_dir", "Re", "NX", "fkx", "fky", "dt", "tTotal", "tSave", "beta", "alpha", "ic_file", "seed",
        "skip_stability_check", "dtype", "workers", "compression", "overwrite", "resume",
    ):  # fmt: skip
        assert f"--{flag}" in text
    for default in ("1000.0", "512", "0.0001", "20.0", "0.01"):
        assert f"(default: {default})" in " ".join(text.split())


def test_continue_from_another_resolution(tmp_path: Path) -> None:
    """--ic_file takes the last frame of an output."""
    assert main(tmp_path / "coarse", *SMALL) == 0
    source = str(tmp_path / "coarse" / "output.h5")
    fine = ("--NX", "64", "--dt", "0.001", "--tTotal", "0.01", "--tSave", "0.01")
    assert main(tmp_path / "fine", *fine, "--ic_file", source) == 0
    coarse, start = frames(tmp_path / "coarse")[0][-1], frames(tmp_path / "fine")[0][0]
    np.testing.assert_allclose(start[::2, ::2], coarse, atol=1e-4)


def test_extension_equals_a_run_of_full_length(tmp_path: Path) -> None:
    """A finished run goes on with a larger tTotal; without one there is nothing to do."""
    assert main(tmp_path / "whole", *SMALL, "--tTotal", "0.8") == 0
    assert main(tmp_path / "parts", *SMALL) == 0
    assert main(tmp_path / "parts", "--resume") == 0
    assert len(frames(tmp_path / "parts")[1]) == 5
    assert main(tmp_path / "parts", "--resume", "--tTotal", "0.8") == 0
    np.testing.assert_array_equal(frames(tmp_path / "parts")[0], frames(tmp_path / "whole")[0])
    np.testing.assert_array_equal(frames(tmp_path / "parts")[1], frames(tmp_path / "whole")[1])


def test_changed_parameter_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given again unchanged it is fine."""
    assert main(tmp_path, *SMALL) == 0
    assert main(tmp_path, "--resume", "--tTotal", "0.8", "--Re", "500", "--NX", "32") == 1
    error = capsys.readouterr().err
    assert "Re: 1000.0 in the checkpoint, 500.0 now" in error
    assert "NX" not in error
    assert main(tmp_path, "--resume", "--tTotal", "0.8", "--Re", "1000", "--NX", "32") == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_stopped_run_continues_bit_for_bit(
    number: signal.Signals, code: int, whole_run: Path, tmp_path: Path
) -> None:
    """SIGKILL goes back to the last periodic checkpoint, the others to where they were."""
    stopped = tmp_path / "stopped"
    returncode, messages = stop_on_the_way(stopped, (*LONG, "--checkpoint_interval", "0.2"), number)
    assert returncode == code
    early, _ = frames(stopped)
    assert 8 <= len(early) < 41, "the run was not stopped on the way"
    assert read_hdf5_info(stopped / "output.h5").metadata["complete"] is False
    if number != signal.SIGKILL:
        assert f"{number.name}: stopped at t=" in messages
    assert main(stopped, "--resume") == 0
    omega, times = frames(stopped)
    whole, whole_times = frames(whole_run)
    np.testing.assert_array_equal(omega, whole)
    np.testing.assert_array_equal(times, whole_times)
    assert validate(stopped / "output.h5") == []
    assert read_hdf5_info(stopped / "output.h5").metadata["complete"] is True


def test_blow_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, time, CFL and advice; the frames before are there and good, the checkpoint too."""
    arguments = ("--NX", "32", "--Re", "100000", "--dt", "0.05", "--tTotal", "500", "--tSave", "0.5")
    assert main(tmp_path, *arguments, "--skip_stability_check") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the flow blew up before t=")
    assert "CFL" in error
    assert "--dt" in error
    omega, _ = frames(tmp_path)
    assert len(omega) >= 1
    assert np.all(np.isfinite(omega))
    assert read_hdf5_info(tmp_path / "output.h5").metadata["complete"] is False
    assert np.all(np.isfinite(load_checkpoint(tmp_path / "checkpoint.npz").arrays["omega_hat"]))


def test_no_torch() -> None:
    """The solver's process never loads torch."""
    code = "import sys, solvers.py2d_turbulence.run_solver; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


_WITHOUT_EXTRA = """
import sys
sys.modules["numba"] = sys.modules["pyfftw"] = None  # importing them fails, as if they were not installed
from solvers.py2d_turbulence import run_solver
sys.exit(run_solver.main(sys.argv[1:]))
"""


def test_without_the_fast_extra(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """scipy and numpy alone give the same flow, and say so; a run that changes over says that, too."""
    plain = tmp_path / "plain"
    arguments = [sys.executable, "-c", _WITHOUT_EXTRA, "--output_dir", str(plain)]
    result = subprocess.run([*arguments, *SMALL], capture_output=True, text=True, check=True)
    assert "scipy+numpy" in result.stderr
    assert main(tmp_path / "fast", *SMALL) == 0
    np.testing.assert_allclose(frames(plain)[0], frames(tmp_path / "fast")[0], atol=1e-5)
    assert main(plain, "--resume", "--tTotal", "0.5") == 0
    with_extra = importlib.util.find_spec("pyfftw") or importlib.util.find_spec("numba")
    assert ("not bit for bit" in caplog.text) == bool(with_extra)


def limited(kilobytes: int, output_dir: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with a limit on the size of files."""
    limit = f'ulimit -f {kilobytes}; exec "$@"'
    words = ["bash", "-c", limit, "bash", *command(output_dir, *arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """The frames before it are kept, and the run continues to the same numbers once the limit is gone."""
    flow = ("--NX", "32", "--dt", "0.001", "--tTotal", "2", "--tSave", "0.002")
    assert main(tmp_path / "whole", *flow) == 0
    result = limited(8400, tmp_path / "cut", *flow)  # the writer reserves 8 MiB ahead of what it writes
    assert result.returncode == 1, result.stderr
    assert "ile too large" in result.stderr.splitlines()[-1]
    assert 0 < len(frames(tmp_path / "cut")[1]) < 1001
    assert main(tmp_path / "cut", "--resume") == 0
    np.testing.assert_array_equal(frames(tmp_path / "cut")[0], frames(tmp_path / "whole")[0])


def test_no_room_for_the_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left that could not be continued: the same command starts again."""

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "checkpoint.npz"))

    with monkeypatch.context() as patch:
        patch.setattr("solvers.py2d_turbulence.simulate.write_checkpoint", full)
        assert main(tmp_path, *SMALL) == 1
    assert "checkpoint.npz: no space left on device; make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(tmp_path, *SMALL) == 0


def test_a_second_process_stays_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a run goes on, neither --resume nor --overwrite touches it."""
    process = subprocess.Popen(command(tmp_path, *LONG), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoint.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for flags in (["--resume"], [*LONG, "--overwrite"]):
            assert main(tmp_path, *flags) == 1
            assert "another process is writing it" in capsys.readouterr().err
    finally:
        process.terminate()
    assert process.wait(timeout=60) == 143
    before = len(frames(tmp_path)[1])
    assert main(tmp_path, "--resume") == 0
    assert 1 <= before < len(frames(tmp_path)[1]) == 41


def test_the_field_by_its_name_in_jax(tmp_path: Path) -> None:
    """`omega` from the start, after a resume, and as an initial condition."""
    assert main(tmp_path / "a", *SMALL, "--field_name", "omega") == 0
    assert main(tmp_path / "a", "--resume", "--tTotal", "0.6") == 0
    path = tmp_path / "a" / "output.h5"
    assert validate(path) == []
    assert read_hdf5_info(path).fields == {"omega": ((32, 32), np.dtype("float32"))}
    assert main(tmp_path / "b", *SMALL, "--ic_file", str(path)) == 0
    with open_file(path) as file:
        np.testing.assert_allclose(frames(tmp_path / "b")[0][0], file["fields/omega"][-1], atol=1e-4)


def test_a_checkpoint_from_before_the_field_had_a_choice(tmp_path: Path) -> None:
    assert main(tmp_path, *SMALL) == 0
    saved = load_checkpoint(tmp_path / "checkpoint.npz")
    older = {name: value for name, value in saved.meta.items() if name != "field_name"}
    save_checkpoint(tmp_path / "checkpoint.npz", saved.arrays, older)
    assert main(tmp_path, "--resume", "--tTotal", "0.5") == 0


def test_a_kill_before_the_mark_of_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is done, and its output says so after a resume; an earlier end is refused."""
    assert main(tmp_path, *SMALL) == 0
    path = tmp_path / "output.h5"
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs.modify("complete", np.bool_(False))
    assert main(tmp_path, "--resume") == 0
    assert read_hdf5_info(path).metadata["complete"]
    assert len(frames(tmp_path)[1]) == 5
    assert main(tmp_path, "--resume", "--tTotal", "0.2") == 1
    assert "at t=0.4 already" in capsys.readouterr().err


def test_a_file_system_without_locks(tmp_path: Path) -> None:
    """As some network mounts are: a run, and its continuation."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("needs gcc, to refuse locks as such a mount does")
    source, library = tmp_path / "flock.c", tmp_path / "flock.so"
    source.write_text(
        f"#include <errno.h>\nint flock(int f, int o) {{ errno = {errno.ENOLCK}; return -1; }}\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    code = (
        "import sys\nfrom solvers.py2d_turbulence.run_solver import main\n"
        "sys.exit(main(sys.argv[1:]) or main([*sys.argv[1:3], '--resume', '--tTotal', '0.5']))"
    )
    arguments = [sys.executable, "-c", code, "--output_dir", str(tmp_path / "run"), *SMALL]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"output.h5", "checkpoint.npz"}
    assert validate(tmp_path / "run" / "output.h5") == []
