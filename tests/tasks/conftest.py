"""Tiny files, and flags of a model that trains on them in seconds."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gust_torch.tasks.cli import main
from solvers.common.hdf5_utils import HDF5Writer

NUM_FRAMES = 40


def _write(path: Path, *, fields: tuple[str, ...], grid: tuple[int, int], boundary: tuple[str, str]) -> Path:
    """Return a common-format file of smooth random fields."""
    rng = np.random.default_rng(0)
    k = np.add.outer(np.abs(np.fft.fftfreq(grid[0], 1 / grid[0])), np.fft.rfftfreq(grid[1], 1 / grid[1]))
    noise = rng.standard_normal((len(fields), NUM_FRAMES, *grid))
    values = np.fft.irfft2(np.fft.rfft2(noise) / (1 + k) ** 2, s=grid)
    lengths = (4.0, 2.0)
    axes = {
        name: (np.arange(n) + (0.5 if kind == "wall" else 0.0)) * length / n
        for name, n, length, kind in zip("xy", grid, lengths, boundary, strict=True)
    }
    metadata = {"solver": "test", "boundary_x": boundary[0], "boundary_y": boundary[1], "grid_y": "uniform"}
    with HDF5Writer(path, fields=dict.fromkeys(fields, grid), coordinates=axes, metadata=metadata) as writer:
        writer.append(
            dict(zip(fields, (5 * values / values.std()).astype(np.float32), strict=True)),
            time=0.1 * np.arange(NUM_FRAMES),
            trajectory=np.zeros(NUM_FRAMES, dtype=np.int32),
        )
        writer.close(complete=True)
    return path


@pytest.fixture(scope="session")
def turbulence_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vorticity on a 16 x 16 periodic grid."""
    folder = tmp_path_factory.mktemp("turbulence")
    return _write(
        folder / "output.h5", fields=("vorticity",), grid=(16, 16), boundary=("periodic", "periodic")
    )


@pytest.fixture(scope="session")
def convection_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Buoyancy and vorticity on a 32 x 8 grid with walls."""
    folder = tmp_path_factory.mktemp("convection")
    return _write(
        folder / "output.h5", fields=("buoyancy", "vorticity"), grid=(32, 8), boundary=("periodic", "wall")
    )


@pytest.fixture(scope="session")
def tiny_flags() -> Callable[[Path, Path], list[str]]:
    """`tiny_flags(data, root)`: flags of a tiny model on the CPU."""

    def flags(data: Path, root: Path) -> list[str]:
        values = {
            "data.data_path": data,
            "data.batch_size": 6,
            "data.block_size": 1,
            "data.num_workers": 0,
            "model.base_channels": 8,
            "model.channel_mult": "[1,1]",
            "model.patch_size": 2,
            "model.num_res_blocks": 1,
            "model.codebook_dim": 4,
            "model.vocab_size": 8,
            "model.scales": "[[1,1],[2,2],[4,4]]",
            "model.attention_heads": 2,
            "trainer.accelerator": "cpu",
            "trainer.devices": 1,
            "trainer.max_epochs": 2,
            "trainer.max_steps": -1,
            "trainer.check_val_every_n_epoch": 1,
            "trainer.enable_progress_bar": "false",
            "trainer.enable_model_summary": "false",
            "trainer.log_every_n_steps": 1,
            "trainer.default_root_dir": root,
        }
        return [part for name, value in values.items() for part in (f"--{name}", str(value))]

    return flags


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """`refused(arguments)`: the one line with which the training command ends, with exit code 1."""

    def run(arguments: list[str]) -> str:
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 1
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


@pytest.fixture(scope="session")
def logged() -> Callable[[Path], dict[str, list[float]]]:
    """`logged(root)`: the values of each metric in the newest log of a training, in their order."""

    def read(root: Path) -> dict[str, list[float]]:
        newest = max((root / "logs").iterdir(), key=lambda folder: int(folder.name.split("_")[1]))
        found: dict[str, list[float]] = {}
        with (newest / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for name in filter(row.get, row):
                    found.setdefault(name, []).append(float(row[name]))
        return found

    return read
