"""What all figures share: palette, labels of fields, maps, fields beside their estimates, saving."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from gust_torch.graph_spec import GraphSpec
from gust_torch.metrics.transforms import chebyshev_edges
from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.files import written_aside

# Okabe & Ito (2008), told apart with any color vision; styles differ too, for print in black and white.
BLACK, VERMILLION, BLUE = "#000000", "#D55E00", "#0072B2"
GRAY, NOTE = "#7F7F7F", "#555555"
DIVERGING, SEQUENTIAL, ERROR = "RdBu_r", "inferno", "PuOr_r"
# Vorticity is intermittent: a few extreme points would leave the rest of the picture pale.
PERCENTILE = 99.7
# Inches: a figure of fields is not larger, however many fields it shows.
LARGEST = np.array([13.0, 10.0])
# Inches in it that are not panels: beside those of a field with their color bars, above each, below all.
LEFT, BETWEEN, RIGHT, NOTES, BELOW = 0.6, 1.25, 0.9, 0.22, 0.75
DPI = 160
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "mathtext.fontset": "cm",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}
# Maps have their ticks outside, at the left and below.
MAP_STYLE = {key: value for key, value in STYLE.items() if not key.startswith(("xtick", "ytick"))}
Array = NDArray[np.float32]

_LABELS = {
    "vorticity": r"vorticity $\omega$",
    "buoyancy": "buoyancy $b$",
    "pressure": "pressure $p$",
    "velocity_x": "velocity $u$",
    "velocity_y": "velocity $v$",
    "density": r"density $\rho$",
    "psi": r"stream function $\psi$",
}


def field_label(name: str, spec: FieldSpec | GraphSpec) -> str:
    """Name and symbol of a channel; the second velocity is w where the second axis is vertical."""
    name = canonical_name(name)
    if name == "velocity_y" and axis_names(spec)[1] == "z":
        return "velocity $w$"
    return _LABELS.get(name, f"${name}$" if len(name) == 1 else name.replace("_", " "))


def axis_names(spec: FieldSpec | GraphSpec) -> tuple[str, str]:
    """Names of the two axes: x and y, or x and z where the second one of a grid runs between walls."""
    return ("x", "z" if isinstance(spec, FieldSpec) and spec.boundary[1] == "wall" else "y")


def transform_note(spec: FieldSpec, *, wall_modes: str = "cosine") -> str:
    """Say how spectra are taken; `wall_modes` are "sine" for kinetic energy from the vorticity."""
    if spec.boundary == ("periodic", "periodic"):
        return "Fourier transform along both axes"
    nodes = ", interpolated from Chebyshev nodes" if spec.grid_y == "chebyshev" else ""
    return ", ".join(
        f"Fourier transform along {name}"
        if boundary == "periodic"
        else f"{wall_modes} transform along {name} (walls{nodes if axis == 1 else ''})"
        for axis, (name, boundary) in enumerate(zip(axis_names(spec), spec.boundary, strict=True))
    )


def write_results(
    output_dir: Path,
    figures: Mapping[str, Figure],
    metrics: Mapping[str, object],
    arrays: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write figures, ``curves.npz`` if there are arrays, then ``metrics.json``, each beside its name first.

    Texts and whole numbers of the metrics go into each figure, all of them into ``curves.npz``.

    Returns:
        The files.
    """
    files: dict[str, Callable[[BinaryIO], object]] = {}
    source = json.dumps({key: value for key, value in metrics.items() if isinstance(value, str | int)})
    for name, figure in figures.items():
        files[name] = partial(figure.savefig, format="png", metadata={"Source": source})
    if arrays is not None:
        files["curves.npz"] = partial(np.savez, metrics_json=np.array(json.dumps(metrics)), **arrays)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    files["metrics.json"] = lambda file: file.write(text.encode())
    for name, write in files.items():
        with written_aside(output_dir / name) as file:
            write(file)
    return [output_dir / name for name in files]


def value_norm(reference: Array) -> Normalize:
    """Color limits of a field: symmetric about 0, or its range where it has one sign only, as buoyancy."""
    low, high = (float(limit) for limit in np.percentile(reference, [100 - PERCENTILE, PERCENTILE]))
    one_signed = min(-low, high) < 0.05 * max(-low, high)
    return Normalize(low, high) if one_signed and high > low else symmetric_norm(reference)


def symmetric_norm(values: Array) -> Normalize:
    """Limits symmetric about 0 that hold all but the most extreme values."""
    limit = float(np.percentile(np.abs(values), PERCENTILE)) or 1.0
    return Normalize(-limit, limit)


def draw_map(axes: Axes, field: Array, spec: FieldSpec, colors: str, norm: Normalize) -> None:
    """Draw ``(h, w)`` with x to the right and y (or z) upward, on the nodes it is given at."""
    length_x, length_y = spec.lengths
    if spec.grid_y == "chebyshev":
        x = np.linspace(0.0, length_x, spec.grid[0] + 1)
        y = length_y * chebyshev_edges(spec.grid[1]).numpy()
        axes.pcolormesh(x, y, field.T, cmap=colors, norm=norm, rasterized=True)
    else:
        extent = (0.0, length_x, 0.0, length_y)
        axes.imshow(field.T, origin="lower", extent=extent, cmap=colors, norm=norm, aspect="auto")
    length_ticks(axes.xaxis, length_x)
    length_ticks(axes.yaxis, length_y)


def length_ticks(axis: Axis, length: float) -> None:
    """Few ticks along a spatial axis, as multiples of pi on a side of 2 pi."""
    in_pi = math.isclose(length, 2 * math.pi, rel_tol=1e-3)
    values = [0.0, length / 2, length]
    axis.set_ticks(values, ["0", r"$\pi$", r"$2\pi$"] if in_pi else [f"{value:g}" for value in values])


class Comparison(NamedTuple):
    """One row of a figure: a field, an estimate, which may not be finite, and notes above at both ends."""

    reference: Array
    estimate: Array
    left: str = ""
    right: str = ""


def comparison_figure(
    fields: Sequence[tuple[str, Sequence[Comparison]]],
    draw: Callable[[Axes, int, Array, str, Normalize], None],
    spec: FieldSpec | GraphSpec,
    *,
    domain: tuple[float, float],
    titles: tuple[str, str, str],
    error_label: str,
    title: str = "",
    y_label: str | None = None,
) -> Figure:
    """Draw reference, estimate and error; fields stand below one another, or side by side if they are many.

    Args:
        fields: Label and rows of each field, equally many; colors are shared within a field.
        draw: Draws the values of a row, with its number, color map and limits, and sets ticks.
        spec: Names the axes.
        domain: Sides of what a panel shows: panels have its shape, as far as they get no slabs or columns.
        titles: Of the three columns.
        error_label: Of the second color bar.
        title: Above all.
        y_label: At the left, where it is not that of the spec.
    """
    rows, head = len(fields[0][1]), 0.3 if title else 0.05
    # Inches of a panel where there is room: near 5 square inches.
    ratio = min(max(domain[1] / domain[0], 0.25), 4.0)
    width = min(max((5.0 / ratio) ** 0.5, 1.6), 3.2)

    def layout(columns: int) -> tuple[float, float, float]:
        """Scale of the panels and inches of the figure, for so many fields side by side."""
        lines = math.ceil(len(fields) / columns)
        room = np.array([columns * (LEFT + BETWEEN + RIGHT), lines * (rows * NOTES + BELOW) + head])
        panels = np.array([3 * columns * width, lines * rows * width * ratio])
        scale = float(np.clip(((LARGEST - room) / panels).min(), 0.25, 1.0))
        return scale, *(room + scale * panels)

    columns = max(range(1, len(fields) + 1), key=lambda columns: layout(columns)[0])
    lines = math.ceil(len(fields) / columns)
    _, *size = layout(columns)
    heights = [head, *lines * [(size[1] - head) / lines]]
    x, y = (f"${name}$" for name in axis_names(spec))
    with matplotlib.rc_context(MAP_STYLE):
        figure = Figure(figsize=(size[0], size[1]))
        figure.suptitle(title, fontsize=9, y=1 - 0.08 / size[1], va="top")
        grid = figure.add_gridspec(lines + 1, columns, height_ratios=heights)
        for number, (label, own) in enumerate(fields):
            part = figure.add_subfigure(grid[1 + number // columns, number % columns])
            panels = _draw_field(part, own, draw, (label, error_label))
            for axes in panels.flat:
                axes.set(xlabel=x, ylabel=y_label or y)
                axes.label_outer()
            for axes, text in zip(panels[0], titles, strict=True):
                axes.set_title(text, pad=14)
        return figure


def _draw_field(
    part: SubFigure, rows: Sequence[Comparison], draw: Callable[..., None], labels: tuple[str, str]
) -> NDArray[Any]:
    """Draw the rows of one field with color bars for the values and for the errors; return the panels."""
    # Not left to a layout engine, which would take longer than all else.
    width, height = (side / part.get_dpi() for side in part.bbox.size)
    panel = (width - LEFT - BETWEEN - RIGHT) / 3
    # Panel, gap, panel, gap, bar, room for its labels, panel, gap, bar.
    inches = [panel, 0.2, panel, 0.07, 0.1, BETWEEN - 0.37, panel, 0.07, 0.1]
    grid = part.add_gridspec(
        len(rows), 9, width_ratios=inches, wspace=0, hspace=NOTES * len(rows) / (height - BELOW),
        left=LEFT / width, right=1 - (RIGHT - 0.17) / width, bottom=0.45 / height, top=1 - 0.3 / height,
    )  # fmt: skip
    share: dict[str, Axes] = {}
    panels = np.empty((len(rows), 3), dtype=object)
    for index in np.ndindex(panels.shape):
        panels[index] = part.add_subplot(grid[index[0], (0, 2, 6)[index[1]]], **share)
        share = {"sharex": panels[0, 0], "sharey": panels[0, 0]}
    errors = np.concatenate([(row.estimate - row.reference).ravel() for row in rows])
    # An estimate may blow up: colors go by what is finite, and 0 stands for nothing at all.
    norm = value_norm(np.concatenate([row.reference.ravel() for row in rows]))
    error_norm = symmetric_norm(np.append(errors[np.isfinite(errors)], 0.0))
    colors = DIVERGING if norm.vmin == -(norm.vmax or 0.0) else SEQUENTIAL
    for number, (axes, row) in enumerate(zip(panels, rows, strict=True)):
        draw(axes[0], number, row.reference, colors, norm)
        draw(axes[1], number, row.estimate, colors, norm)
        draw(axes[2], number, row.estimate - row.reference, ERROR, error_norm)
        for each, x, text, side in ((axes[0], 0, row.left, "left"), (axes[2], 1, row.right, "right")):
            each.annotate(
                text, (x, 1), (0, 2), xycoords="axes fraction", textcoords="offset points",
                ha=side, va="bottom", fontsize=7.5,
            )  # fmt: skip
    bars = (ScalarMappable(norm, colors), 4, labels[0]), (ScalarMappable(error_norm, ERROR), 8, labels[1])
    for mappable, column, label in bars:
        cax = part.add_subplot(grid[:, column])
        part.colorbar(mappable, cax=cax, extend="both").set_label(label, labelpad=2)
    return panels
