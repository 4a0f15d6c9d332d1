"""Figures: orientation, color limits, labels, and a file for every combination of fields."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from torch import Tensor

from gust_torch.analysis.figures import analysis_figures, reconstruction_figure
from gust_torch.analysis.passes import Analysis, Example
from gust_torch.analysis.report import curves, summarize
from gust_torch.analysis.spectrum_figure import spectrum_figures
from gust_torch.analysis.sums import ErrorSums, FloorFrames, SpectrumSums
from gust_torch.figures import draw_map, symmetric_norm, transform_note, value_norm, write_results
from gust_torch.metrics.histogram import ValueHistogram
from gust_torch.spec import FieldSpec

PNG = b"\x89PNG\r\n\x1a\n"
CPU = torch.device("cpu")


def make_analysis(spec: FieldSpec, x: Tensor, x_hat: Tensor) -> Analysis:
    c = spec.num_channels
    histogram = ValueHistogram(torch.zeros(c), torch.ones(c))
    frames = FloorFrames(spec, len(x), CPU)
    analysis = Analysis(spec, ErrorSums(), SpectrumSums(spec, CPU), histogram, frames)
    analysis.update(x, x_hat)
    example = Example(0, math.nan, x[0].numpy(), x_hat[0].numpy(), np.zeros(c, np.float32))
    analysis.examples.append(example)
    return analysis


def write(spec: FieldSpec, x: Tensor, x_hat: Tensor, folder: Path) -> list[str]:
    analysis = make_analysis(spec, x, x_hat)
    metrics = {**summarize(analysis), "checkpoint": "model.ckpt"}
    figures = analysis_figures(analysis, metrics)
    return [path.name for path in write_results(folder, figures, metrics, curves(analysis))]


def draw_spectrum(name: str, spec: FieldSpec, x: Tensor, x_hat: Tensor) -> Figure:
    analysis = make_analysis(spec, x, x_hat)
    return spectrum_figures(analysis.spectra, summarize(analysis))[name]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("buoyancy",), {"power_spectrum.png"}),
        (("buoyancy", "omega"), {"tke_spectrum.png", "enstrophy_spectrum.png", "power_spectrum.png"}),
        (("velocity_x", "velocity_y"), {"tke_spectrum.png"}),
    ],
)
def test_files_of_each_combination_of_fields(
    names: Sequence[str], expected: set[str], tmp_path: Path, make_fields: Callable[..., Tensor]
) -> None:
    spec = FieldSpec(names=tuple(names), grid=(16, 16))
    x = make_fields(spec, 2)
    files = write(spec, x, 0.8 * x, tmp_path)
    common = {"pixel_histogram.png", "reconstructions.png", "curves.npz", "metrics.json"}
    assert set(files) == expected | common
    assert {path.name for path in tmp_path.iterdir()} == expected | common
    for path in tmp_path.glob("*.png"):
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert b"model.ckpt" in content


@pytest.mark.parametrize("cases", [("lost", "exact"), ("constant", "huge")])
def test_extreme_reconstructions_can_be_drawn(
    cases: tuple[str, str],
    tmp_path: Path,
    make_fields: Callable[..., Tensor],
    recwarn: pytest.WarningsRecorder,
) -> None:
    spec = FieldSpec(names=("vorticity", "pressure"), grid=(16, 16), forcing_wavenumber=2.0)
    x = make_fields(spec, 2)
    if cases[0] == "constant":
        x[:, 0] = 1.0
    factors = {"lost": 0.0, "exact": 1.0, "constant": 1.0, "huge": 1e6}
    x_hat = x * torch.tensor([factors[case] for case in cases]).view(2, 1, 1)
    write(spec, x, x_hat, tmp_path)
    assert not [str(warning.message) for warning in recwarn]


def test_power_laws_are_drawn_for_forced_flow_only(make_fields: Callable[..., Tensor]) -> None:
    drawn = {}
    for forcing in (4.0, None):
        spec = FieldSpec(names=("vorticity",), grid=(64, 64), forcing_wavenumber=forcing)
        x = make_fields(spec, 2)
        figure = draw_spectrum("tke_spectrum.png", spec, x, x)
        drawn[forcing] = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"$k^{-5/3}$", "$k^{-3}$", "$k_f$"} <= drawn[4.0]
    assert not {"$k^{-5/3}$", "$k^{-3}$", "$k_f$"} & drawn[None]


def test_convection_has_readable_ticks_and_no_inertial_range(make_fields: Callable[..., Tensor]) -> None:
    spec = FieldSpec(names=("vorticity",), grid=(64, 16), boundary=("periodic", "wall"), lengths=(4.0, 1.0))
    x = make_fields(spec, 2)
    figure = draw_spectrum("enstrophy_spectrum.png", spec, x, 11 * x)
    figure.draw_without_rendering()
    upper, lower = figure.axes[:2]
    texts = [text.get_text() for text in upper.texts]
    assert "middle\n12,000 %" in texts
    assert not any("inertial" in text or "9999 %" in text for text in texts)
    boxes = [label.get_window_extent() for label in lower.get_xticklabels(which="both") if label.get_text()]
    boxes = [box for box in boxes if lower.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1]
    assert len(boxes) >= 3
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_many_fields_make_no_tower(make_fields: Callable[..., Tensor]) -> None:
    names = ("omega", "vorticity", "c", "d")  # the first two have one label
    spec = FieldSpec(names=names, grid=(16, 16))
    x = make_fields(spec, 3).numpy()
    examples = [Example(i, 0.5 * i, x[i], 0.5 * x[i], np.full(4, 0.5, np.float32)) for i in range(3)]
    figure = reconstruction_figure(examples, spec)
    assert sum(axes.get_title() == "data" for axes in figure.axes) == 4
    width, height = figure.get_size_inches()
    assert 0.8 < width / height < 2
    assert max(width, height) < 13


def test_curves_can_be_plotted_again(tmp_path: Path, make_fields: Callable[..., Tensor]) -> None:
    spec = FieldSpec(names=("vorticity",), grid=(16, 16))
    x = make_fields(spec, 2)
    write(spec, x, 0.5 * x, tmp_path)
    with np.load(tmp_path / "curves.npz", allow_pickle=False) as arrays:
        assert arrays["spectrum_vorticity_reference"].sum() == pytest.approx(
            0.5 * float((x**2).mean()), rel=1e-5
        )
        assert arrays["k"].shape == arrays["spectrum_kinetic_energy_error"].shape
        assert len(arrays["histogram_vorticity_edges"]) == len(arrays["histogram_vorticity_reference"]) + 1
        assert json.loads(str(arrays["metrics_json"]))["checkpoint"] == "model.ckpt"


def test_maps_have_x_to_the_right_and_y_up() -> None:
    """Axis 0 of a field is x: a spot at large x and small y belongs into the lower right corner."""
    spec = FieldSpec(names=("vorticity",), grid=(8, 4), lengths=(2.0, 1.0))
    field = np.zeros((8, 4), np.float32)
    field[7, 0] = 1.0
    figure = Figure()
    axes = figure.subplots()
    draw_map(axes, field, spec, "RdBu_r", symmetric_norm(field))
    image = axes.get_images()[0]
    array = np.asarray(image.get_array())
    assert image.origin == "lower"
    assert array.shape == (4, 8)
    assert array[0, 7] == 1.0
    assert tuple(image.get_extent()) == (0.0, 2.0, 0.0, 1.0)


def test_maps_on_chebyshev_nodes_have_thin_cells_at_the_walls() -> None:
    spec = FieldSpec(
        names=("b",), grid=(8, 6), boundary=("periodic", "wall"), lengths=(4.0, 1.0), grid_y="chebyshev"
    )
    field = np.zeros((8, 6), np.float32)
    axes = Figure().subplots()
    draw_map(axes, field, spec, "RdBu_r", symmetric_norm(field + 1))
    mesh = axes.collections[0]
    assert isinstance(mesh, QuadMesh)
    heights = np.diff(np.asarray(mesh.get_coordinates())[:, 0, 1])
    assert heights.sum() == pytest.approx(1.0)
    assert heights[0] == pytest.approx(0.5 * (1 - math.cos(math.pi / 6)))
    assert heights[0] < heights[2]


def test_color_limits() -> None:
    vorticity = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    norm = value_norm(vorticity)
    assert norm.vmax is not None
    assert norm.vmin == -norm.vmax
    assert 2.5 < norm.vmax < 3.5
    buoyancy = np.linspace(-0.01, 1.0, 1000, dtype=np.float32)
    norm = value_norm(buoyancy)
    assert norm.vmin == pytest.approx(0.0, abs=0.01)
    assert norm.vmax == pytest.approx(1.0, abs=0.01)
    assert symmetric_norm(np.zeros(4, np.float32)).vmax == 1.0
    assert value_norm(np.ones(4, np.float32)).vmax == 1.0


def test_the_transform_is_stated() -> None:
    names = ("b",)
    assert transform_note(FieldSpec(names=names, grid=(4, 4))) == "Fourier transform along both axes"
    wall = FieldSpec(names=names, grid=(4, 4), boundary=("periodic", "wall"))
    assert transform_note(wall) == "Fourier transform along x, cosine transform along z (walls)"
    chebyshev = FieldSpec(names=names, grid=(4, 4), boundary=("periodic", "wall"), grid_y="chebyshev")
    assert "interpolated from Chebyshev nodes" in transform_note(chebyshev)
    assert "sine transform along z" in transform_note(wall, wall_modes="sine")
