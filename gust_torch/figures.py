"""What all figures share: palette, labels of fields, maps, fields beside their estimates, saving."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1 import ImageGrid
from numpy.typing import NDArray

from gust_torch.metrics.transforms import chebyshev_edges
from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.files import written_aside

# Okabe & Ito (2008), told apart with any color vision; styles differ too, for print in black and white.
BLACK, VERMILLION, BLUE = "#000000", "#D55E00", "#0072B2"
GRAY, NOTE = "#7F7F7F", "#555555"
REFERENCE: dict[str, Any] = {"color": BLACK, "linestyle": "-", "linewidth": 1.6}
RECONSTRUCTION: dict[str, Any] = {"color": VERMILLION, "linestyle": "--", "linewidth": 1.6}
DIFFERENCE: dict[str, Any] = {"color": BLUE, "linestyle": ":", "linewidth": 1.6}

DIVERGING, SEQUENTIAL, ERROR = "RdBu_r", "inferno", "PuOr_r"
# Vorticity is intermittent: a few extreme points would leave the rest of the picture pale.
PERCENTILE = 99.7

DPI = 160
# Inches: a figure of fields is not larger, however many fields it shows.
LARGEST = (13.0, 10.0)
Array = NDArray[np.float32]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.grid": False,
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


@dataclass(frozen=True)
class FieldLabel:
    """Name and mathematical symbol of a field."""

    name: str
    symbol: str

    @property
    def text(self) -> str:
        """Both, such as "vorticity $\\omega$"."""
        return f"{self.name} ${self.symbol}$" if self.symbol else self.name


_SYMBOLS = {
    "vorticity": ("vorticity", r"\omega"),
    "buoyancy": ("buoyancy", "b"),
    "pressure": ("pressure", "p"),
    "velocity_x": ("velocity", "u"),
    "velocity_y": ("velocity", "v"),
    "density": ("density", r"\rho"),
    "psi": ("stream function", r"\psi"),
}


def field_label(name: str, spec: FieldSpec) -> FieldLabel:
    """Label of a channel; the second velocity component is w where the second axis is vertical."""
    known, symbol = _SYMBOLS.get(canonical_name(name), (name.replace("_", " "), ""))
    if canonical_name(name) == "velocity_y" and spec.boundary[1] == "wall":
        symbol = "w"
    return FieldLabel(known, symbol)


def axis_names(spec: FieldSpec) -> tuple[str, str]:
    """Names of the two axes: x and y, or x and z where the second one runs between walls."""
    return ("x", "z" if spec.boundary[1] == "wall" else "y")


def transform_note(spec: FieldSpec, *, wall_modes: str = "cosine") -> str:
    """How spectra are taken on the axes of these data.

    Args:
        spec: The data's axes.
        wall_modes: "cosine", or "sine" for kinetic energy from the vorticity.
    """
    if spec.boundary == ("periodic", "periodic"):
        return "Fourier transform along both axes"
    parts = []
    for axis, (name, boundary) in enumerate(zip(axis_names(spec), spec.boundary, strict=True)):
        if boundary == "periodic":
            parts.append(f"Fourier transform along {name}")
        else:
            nodes = ", interpolated from Chebyshev nodes" if axis == 1 and spec.grid_y == "chebyshev" else ""
            parts.append(f"{wall_modes} transform along {name} (walls{nodes})")
    return ", ".join(parts)


def length_ticks(axes: Axes, lengths: tuple[float, float]) -> None:
    """Few ticks along the spatial axes, as multiples of pi on a side of 2 pi."""
    for axis, length in zip((axes.xaxis, axes.yaxis), lengths, strict=True):
        in_pi = math.isclose(length, 2 * math.pi, rel_tol=1e-3)
        values = [0.0, length / 2, length]
        axis.set_ticks(values, ["0", r"$\pi$", r"$2\pi$"] if in_pi else [f"{value:g}" for value in values])


def save_figures(figures: Mapping[str, Figure], source: Mapping[str, object], output_dir: Path) -> list[Path]:
    """Write each figure as a PNG under its name, beside it first: a reader never meets half a picture.

    Args:
        figures: File name -> figure.
        source: What the figures were made from; its texts and numbers go into the files.
        output_dir: Created if missing.

    Returns:
        The files written.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps({key: value for key, value in source.items() if isinstance(value, str | int)})
    for name, figure in figures.items():
        with written_aside(output_dir / name) as file:
            figure.savefig(file, format="png", metadata={"Source": text})
    return [output_dir / name for name in figures]


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
    axes.set_xlim(0.0, length_x)
    axes.set_ylim(0.0, length_y)


@dataclass(frozen=True)
class Comparison:
    """One row of a figure: a field, an estimate of it, and notes above the first and the last panel.

    Attributes:
        reference: Values of any shape that the drawing function takes.
        estimate: Of the same shape; may hold values that are not finite.
        first: Note at the left.
        last: Note at the right.
        place: What the drawing function wants to know beside the values.
    """

    reference: Array
    estimate: Array
    first: str = ""
    last: str = ""
    place: Any = None


@dataclass(frozen=True)
class Looks:
    """Of a figure of fields.

    Attributes:
        draw: Draws values: axes, row, values, color map, limits.
        panel: Width and height of a panel in inches, made smaller where there are many.
        axis_labels: Below and at the left.
        ticks: Sets the ticks of a panel.
        titles: Of the three columns.
        error_label: Of the third color bar.
        title: Above all.
    """

    draw: Callable[[Axes, Comparison, Array, str, Normalize], None]
    panel: tuple[float, float]
    axis_labels: tuple[str, str]
    ticks: Callable[[Axes], None]
    titles: tuple[str, str, str]
    error_label: str
    title: str = ""


def panel_size(width: float, height: float) -> tuple[float, float]:
    """Inches of a panel with the shape of a domain: near 5 square inches, neither a slab nor a column."""
    ratio = min(max(height / width, 0.25), 4.0)
    inches = min(max((5.0 / ratio) ** 0.5, 1.6), 3.2)
    return inches, inches * ratio


def comparison_figure(fields: Sequence[tuple[str, Sequence[Comparison]]], looks: Looks) -> Figure:
    """Draw reference, estimate and error; fields stand below one another, or side by side if they are many.

    Args:
        fields: Label and rows of each field, equally many; colors are shared within a field.
        looks: How to draw.
    """
    rows = len(fields[0][1])
    # Inches beside the panels of a field: gaps, color bars and their labels; notes above each panel.
    extra, gap, notes = (2.75, 0.75, 0.22)
    head = 0.3 if looks.title else 0.05

    def size(columns: int, scale: float) -> tuple[float, float]:
        lines = math.ceil(len(fields) / columns)
        width = columns * (3 * scale * looks.panel[0] + extra)
        return width, lines * (rows * (scale * looks.panel[1] + notes) + gap) + head

    def scale(columns: int) -> float:
        large, small = size(columns, 1.0), size(columns, 0.0)
        fits = [(LARGEST[i] - small[i]) / (large[i] - small[i]) for i in (0, 1)]
        return min(1.0, max(0.25, min(fits)))

    columns = max(range(1, len(fields) + 1), key=scale)
    width, height = size(columns, scale(columns))
    with matplotlib.rc_context(
        {
            **STYLE,
            "xtick.top": False,
            "ytick.right": False,
            "xtick.direction": "out",
            "ytick.direction": "out",
        }
    ):
        figure = Figure(figsize=(width, height))
        lines = math.ceil(len(fields) / columns)
        block = (width / columns, (height - head) / lines)
        for index, (label, own) in enumerate(fields):
            line, column = divmod(index, columns)
            left, top = column * block[0], height - head - line * block[1]
            room = (left / width, (top - block[1]) / height, block[0] / width, block[1] / height)
            _draw_field(figure, room, label, own, looks, block)
        figure.suptitle(looks.title, fontsize=9, y=1 - 0.08 / height, va="top")
        return figure


def _draw_field(
    figure: Figure,
    room: tuple[float, float, float, float],
    label: str,
    rows: Sequence[Comparison],
    looks: Looks,
    inches: tuple[float, float],
) -> None:
    """All rows of one field in its room of the figure, with color bars for the values and for the errors."""
    errors = np.concatenate([(row.estimate - row.reference).ravel() for row in rows])
    # An estimate may blow up: colors go by what is finite, and 0 stands for nothing at all.
    norm = value_norm(np.concatenate([row.reference.ravel() for row in rows]))
    error_norm = symmetric_norm(np.append(errors[np.isfinite(errors)], 0.0))
    colors = DIVERGING if norm.vmin == -(norm.vmax or 0.0) else SEQUENTIAL
    # Inches beside the panels at the left and right, of a color bar with its labels, of a bar alone.
    edges, bar, gap = (0.6, 0.95), 0.95, 0.17
    panel = (inches[0] - sum(edges) - bar - 0.2) / 3
    second = edges[0] + 2 * panel + 0.2 + bar
    shared = {"axes_pad": (0.2, 0.22), "cbar_mode": "single", "cbar_size": 0.1, "cbar_pad": 0.07}
    panels: list[list[Axes]] = [[] for _ in rows]
    for columns, start, end, mappable, text in (
        (2, edges[0], second - bar, ScalarMappable(norm, colors), label),
        (1, second, second + panel, ScalarMappable(error_norm, ERROR), looks.error_label),
    ):
        place = (
            room[0] + start / inches[0] * room[2],
            room[1] + 0.45 / inches[1] * room[3],
            (end + gap - start) / inches[0] * room[2],
            (inches[1] - 0.75) / inches[1] * room[3],
        )
        grid: Any = ImageGrid(figure, place, (len(rows), columns), aspect=False, share_all=True, **shared)
        figure.colorbar(mappable, cax=grid.cbar_axes[0], extend="both").set_label(text, labelpad=2)
        for own, added in zip(panels, grid.axes_row, strict=True):
            own.extend(added)
    for axes, row in zip(panels, rows, strict=True):
        looks.draw(axes[0], row, row.reference, colors, norm)
        looks.draw(axes[1], row, row.estimate, colors, norm)
        looks.draw(axes[2], row, row.estimate - row.reference, ERROR, error_norm)
        for each in axes:
            looks.ticks(each)
        axes[0].set_ylabel(looks.axis_labels[1])
        axes[2].tick_params(labelleft=False)
        _note(axes[0], 0.0, row.first)
        _note(axes[2], 1.0, row.last)
    for axis, title in zip(panels[0], looks.titles, strict=True):
        axis.set_title(title, pad=14)
    for axis in panels[-1]:
        axis.set_xlabel(looks.axis_labels[0])


def _note(axes: Axes, x: float, text: str) -> None:
    """Small text above a panel, at its left (0) or right (1) end."""
    axes.annotate(
        text, (x, 1.0), (0, 2), xycoords="axes fraction", textcoords="offset points",
        ha="right" if x else "left", va="bottom", fontsize=7.5,
    )  # fmt: skip
