"""The picture of a frame."""

from pathlib import Path

import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer
from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.diagnostics import SCALARS
from solvers.rayleigh_benard.grids import chebyshev_nodes
from solvers.rayleigh_benard.output import create_output
from solvers.rayleigh_benard.plot import main


def write(path: Path, count: int) -> None:
    """File of `count` frames."""
    config = RBCConfig(resolution=(16, 8), fields=("buoyancy", "velocity"))
    coordinates = {"x": np.arange(16) / 4, "y": chebyshev_nodes(8)}
    writer: HDF5Writer = create_output(path, config, coordinates, num_ranks=1, overwrite=False)
    with writer:
        for k in range(count):
            frame = {"buoyancy": np.random.default_rng(k).random((16, 8)), "velocity": np.zeros((16, 8, 2))}
            writer.append(frame, time=0.25 * k, scalars=dict.fromkeys(SCALARS, 1.0))


def test_picture(tmp_path: Path) -> None:
    """Scalar fields only; other frames give other pictures."""
    write(tmp_path / "output.h5", 2)
    for frame in (0, 1):
        assert main([str(tmp_path / "output.h5"), str(tmp_path / f"{frame}.png"), "--frame", str(frame)]) == 0
    pictures = [(tmp_path / f"{frame}.png").read_bytes() for frame in (0, 1)]
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("frame", ["2", "-3"])
def test_no_such_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str], frame: str) -> None:
    """One line."""
    write(tmp_path / "output.h5", 2)
    assert main([str(tmp_path / "output.h5"), str(tmp_path / "x.png"), "--frame", frame]) == 1
    assert f"expected a frame below 2, got {frame}" in capsys.readouterr().err
