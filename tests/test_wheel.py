"""The wheel works where there is no repository: simulate, train, tokenize, analyze."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("gust_torch", "solvers", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own, and give its `gust-torch`.

    The environment sees the packages that the tests run with, but no editable install: those are found
    through `.pth` files, which python looks for in its own site-packages only.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(
            ROOT / name,
            source / name,
            **({"ignore": ignore, "symlinks": True} if copy is shutil.copytree else {}),
        )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "-w", folder, source], check=True, timeout=120)
    venv.create(environment, with_pip=False)
    [site] = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "--python", environment, "install", *options, wheel], check=True, timeout=120)
    assert list(site.glob("gust_torch/pretrained/*.ckpt"))
    return environment / "bin" / "gust-torch"


def test_from_a_simulation_to_tokens(command: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    run("simulate", "turbulence", "--output_dir", "run", "--NX", "32", "--dt", "1e-3", "--tTotal", "0.05")
    run("validate", "run/output.h5")
    settings = ["--trainer.max_steps", "2", "--data.batch_size", "2", "--model.base_channels", "8"]
    settings += ["--model.scales", "[[1,1],[2,2]]"]
    quiet = ["--trainer.accelerator", "cpu", "--data.num_workers", "0"]
    run("train", "--config", "vqvae/turbulence.yaml", "--data.data_path", "run/output.h5", *settings, *quiet)
    trained = ["--checkpoint", "runs/checkpoints/last.ckpt", "--data_path", "run/output.h5"]
    run("tokenize", *trained, "--output", "tokens.npz")
    run("analyze", *trained, "--output_dir", "analysis")
    with h5py.File(tmp_path / "run" / "output.h5") as file, np.load(tmp_path / "tokens.npz") as tokens:
        assert len(tokens["indices_flat"]) == len(file["fields/vorticity"])
    assert (tmp_path / "analysis" / "metrics.json").is_file()


def test_the_installed_package_is_the_wheels(command: Path, tmp_path: Path) -> None:
    python = command.with_name("python")
    code = "import gust_torch, solvers; print(gust_torch.__file__, solvers.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(ROOT) not in found.stdout
