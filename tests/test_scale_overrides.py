"""Each line of configs/scale_overrides.md that a CPU can run trains for a step."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from gust_torch.precompute.command import main as precompute
from gust_torch.tasks.cli import main as train
from solvers.common.hdf5_utils import HDF5Writer

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "configs" / "scale_overrides.md").read_text()
SIZE = 64


def lines(section: str) -> list[str]:
    """Return the flags of a section's code block, without comments."""
    block = TEXT.partition(f"\n## {section}")[2].partition("\n```\n")[2].partition("\n```\n")[0]
    return [line.partition(" #")[0].strip() for line in block.splitlines()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return converted data of six short trajectories, and latent caches of an untrained encoder."""
    folder = tmp_path_factory.mktemp("overrides")
    x = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        path = folder / f"burgers1d_{split}.h5"
        coordinates = {"x": x, "y": np.zeros(1, np.float32)}
        metadata = {"solver": "test", "length_x": 1.0, "length_y": 1.0}
        with HDF5Writer(
            path,
            fields={"u": (SIZE, 1)},
            coordinates=coordinates,
            metadata=metadata,
            parameters={"nu": [0.1] * 6},
        ) as writer:
            u = rng.standard_normal((60, SIZE, 1)).astype(np.float32)
            writer.append(
                {"u": u}, time=np.tile(0.1 * np.arange(10), 6), trajectory=np.repeat(np.arange(6), 10)
            )
            writer.close(complete=True)
    arguments = ["--tasks", "burgers1d", "--splits", "train", "val", "--root", str(folder), "--untrained"]
    small = ["--latent-len", "4", "--latent-dim", "8", "--accelerator", "cpu", "--devices", "1"]
    assert precompute([*arguments, *small, "--cache-dir", str(folder / "latents")]) == 0
    return folder


def one_step(config: str, flags: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train a single step with the shipped configuration and some flags."""
    device = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.fast_dev_run", "1"]
    root = ["--trainer.default_root_dir", str(folder)]
    train(["fit", "--config", str(ROOT / "configs" / config / "burgers1d.yaml"), *device, *root, *flags])
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("line", lines("Autoencoder"))
def test_line_for_the_autoencoder(
    line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.data_path", str(root / "burgers1d_train.h5")]
    one_step("autoencoder", [*data, *shlex.split(line)], tmp_path, capsys)


@pytest.mark.parametrize("line", lines("Both trainings") + lines("Latent operator"))
def test_line_for_the_operator(
    line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.init_args.root", str(root), "--training.latent_cache_dir", str(root / "latents")]
    one_step("latent", [*data, *shlex.split(line)], tmp_path, capsys)


def test_all_lines_are_found() -> None:
    written = [line for line in TEXT.splitlines() if line.startswith("--")]
    sections = ("Both trainings", "Autoencoder", "Latent operator", "Devices")
    assert [line.partition(" #")[0].strip() for line in written] == [
        line for section in sections for line in lines(section)
    ]
