"""The picture of a frame."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from solvers.common.hdf5_utils import HDF5Writer
from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.diagnostics import SCALARS
from solvers.rayleigh_benard.grids import chebyshev_nodes
from solvers.rayleigh_benard.output import create_output
from solvers.rayleigh_benard.plot import main, plot_frame


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
    """Other frames give other pictures."""
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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in place of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


def test_every_field_is_drawn_with_its_name(tmp_path: Path, drawn: list[Figure]) -> None:
    """Components of a vector field too."""
    write(tmp_path / "output.h5", 1)
    plot_frame(tmp_path / "output.h5", tmp_path / "x.png")
    labels = [axes.get_ylabel() for axes in drawn[0].axes]
    assert labels == ["z", "z", "z", "buoyancy", "velocity_x", "velocity_y"]
    assert drawn[0].axes[0].get_title() == "Ra = 1e+06, Pr = 1, t = 0, 16 x 8"


def test_a_turbulence_run(tmp_path: Path, drawn: list[Figure]) -> None:
    """Its own parameter, axes and proportions; a color bar that says what lies beyond its colors."""
    axis = 2 * np.pi * np.arange(16) / 16
    values = np.random.default_rng(0).normal(size=(16, 16))
    metadata = {"solver": "py2d_turbulence", "Re": 1000.0, "boundary_y": "periodic"}
    coordinates = {"x": axis, "y": axis}
    with HDF5Writer(
        tmp_path / "t.h5", fields={"vorticity": (16, 16)}, coordinates=coordinates, metadata=metadata
    ) as writer:
        writer.append({"vorticity": values}, time=4.0)
    plot_frame(tmp_path / "t.h5", tmp_path / "x.png")
    picture, _ = drawn[0].axes
    assert picture.get_title() == "Re = 1000, t = 4, 16 x 16"
    assert picture.get_ylabel() == "y"
    width, height = drawn[0].get_size_inches()
    assert width < 1.4 * height
    bar = picture.collections[0].colorbar
    assert bar is not None
    assert bar.extend == "both"
    assert bar.vmax < values.max()
