"""Figure of samples: data, decoded tokens and the error, field by field."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gust_torch.analysis.passes import Example
from gust_torch.analysis.style import STYLE, axis_names, field_label, length_ticks
from gust_torch.metrics.transforms import chebyshev_edges
from gust_torch.spec import FieldSpec

DIVERGING, SEQUENTIAL, ERROR = "RdBu_r", "inferno", "PuOr_r"
COLUMNS = ("data", "decoded tokens", "error")
# Vorticity is intermittent: a few extreme points would leave the rest of the picture pale.
PERCENTILE = 99.7
# Inches: margins of the figure, gaps between panels, a color bar and the room for its labels.
LEFT, RIGHT, TOP, BOTTOM = 0.55, 0.7, 0.45, 0.5
COLUMN_GAP, ROW_GAP, BAR_WIDTH, BAR_PAD, BAR_LABELS = 0.22, 0.26, 0.11, 0.08, 0.72


def fields_figure(examples: Sequence[Example], spec: FieldSpec) -> Figure:
    """Draw a row for each field and sample; colors are shared by data and reconstructions of a field."""
    with matplotlib.rc_context({**STYLE, "xtick.top": False, "ytick.right": False, "xtick.direction": "out"}):
        sheet = _Sheet(spec, spec.num_channels * len(examples))
        for channel in range(spec.num_channels):
            _draw_field(sheet, examples, channel, first_row=channel * len(examples))
        return sheet.figure


class _Sheet:
    """A figure whose panels keep the domain's shape at a fixed size in inches.

    Args:
        spec: Domain and axes.
        rows: Rows of panels.
    """

    def __init__(self, spec: FieldSpec, rows: int) -> None:
        self.spec, self.rows = spec, rows
        ratio = spec.lengths[1] / spec.lengths[0]
        # Near 5 square inches a panel, so that neither a slab nor a column gets out of hand.
        self.panel_width = min(max((5.0 / ratio) ** 0.5, 1.6), 3.2)
        self.panel_height = self.panel_width * ratio
        bar = BAR_PAD + BAR_WIDTH
        second = LEFT + self.panel_width + COLUMN_GAP
        self.first_bar = second + self.panel_width + BAR_PAD
        third = second + self.panel_width + bar + BAR_LABELS
        self.second_bar = third + self.panel_width + BAR_PAD
        self.columns = (LEFT, second, third)
        self.width = third + self.panel_width + bar + RIGHT
        self.height = TOP + rows * self.panel_height + (rows - 1) * ROW_GAP + BOTTOM
        self.figure = Figure(figsize=(self.width, self.height))

    def _bottom(self, row: int) -> float:
        """Height of a row's lower edge, in inches."""
        return self.height - TOP - (row + 1) * self.panel_height - row * ROW_GAP

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def panel(self, row: int, column: int) -> Axes:
        """Panel of a row and column, its spatial axes labeled where they are outermost."""
        axes = self._axes(self.columns[column], self._bottom(row), self.panel_width, self.panel_height)
        x, y = axis_names(self.spec)
        length_ticks(axes, self.spec.lengths)
        axes.tick_params(labelbottom=row == self.rows - 1, labelleft=column == 0)
        if row == 0:
            axes.set_title(COLUMNS[column], pad=14)
        if row == self.rows - 1:
            axes.set_xlabel(f"${x}$")
        if column == 0:
            axes.set_ylabel(f"${y}$")
        return axes

    def color_bar(self, left: float, rows: range, norm: Normalize, colors: str, label: str) -> None:
        """Color bar beside a block of rows, at most three panels high."""
        low, high = self._bottom(rows[-1]), self._bottom(rows[0]) + self.panel_height
        height = min(high - low, 3.2)
        axes = self._axes(left, 0.5 * (low + high - height), BAR_WIDTH, height)
        self.figure.colorbar(ScalarMappable(norm, colors), cax=axes, extend="both", label=label)


def _draw_field(sheet: _Sheet, examples: Sequence[Example], channel: int, first_row: int) -> None:
    """All rows of one field, with one color bar for the values and one for the errors."""
    spec = sheet.spec
    errors = [example.reconstruction[channel] - example.reference[channel] for example in examples]
    norm = value_norm(np.stack([example.reference[channel] for example in examples]))
    error_norm = symmetric_norm(np.stack(errors))
    colors = DIVERGING if norm.vmin == -(norm.vmax or 0.0) else SEQUENTIAL
    rows = range(first_row, first_row + len(examples))
    for row, example, error in zip(rows, examples, errors, strict=True):
        left, middle, right = (sheet.panel(row, column) for column in range(3))
        draw_map(left, example.reference[channel], spec, colors, norm)
        draw_map(middle, example.reconstruction[channel], spec, colors, norm)
        draw_map(right, error, spec, ERROR, error_norm)
        _note(left, 0.0, _when(example))
        _note(right, 1.0, f"VRMSE {example.vrmse[channel]:.3f}")
    sheet.color_bar(sheet.first_bar, rows, norm, colors, field_label(spec.names[channel], spec).text)
    sheet.color_bar(sheet.second_bar, rows, error_norm, ERROR, "error")


def _when(example: Example) -> str:
    return f"sample {example.position}" if math.isnan(example.time) else f"$t$ = {example.time:.4g}"


def _note(axes: Axes, x: float, text: str) -> None:
    """Small text above a panel, at its left (0) or right (1) end."""
    axes.annotate(
        text, (x, 1.0), (0, 2), xycoords="axes fraction", textcoords="offset points",
        ha="right" if x else "left", va="bottom", fontsize=7.5,
    )  # fmt: skip


def value_norm(reference: NDArray[np.float32]) -> Normalize:
    """Color limits of a field: symmetric about 0, or its range where it has one sign only, as buoyancy."""
    low, high = (float(limit) for limit in np.percentile(reference, [100 - PERCENTILE, PERCENTILE]))
    one_signed = min(-low, high) < 0.05 * max(-low, high)
    return Normalize(low, high) if one_signed and high > low else symmetric_norm(reference)


def symmetric_norm(values: NDArray[np.float32]) -> Normalize:
    """Limits symmetric about 0 that hold all but the most extreme values."""
    limit = float(np.percentile(np.abs(values), PERCENTILE)) or 1.0
    return Normalize(-limit, limit)


def draw_map(axes: Axes, field: NDArray[np.float32], spec: FieldSpec, colors: str, norm: Normalize) -> None:
    """Draw ``(h, w)`` with x to the right and y (or z) upward, to scale, on the nodes it is given at."""
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
