"""Figure of one rollout: truth, prediction and error, field by field."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from gust_torch.analysis.fields_figure import (
    DIVERGING,
    ERROR,
    SEQUENTIAL,
    draw_map,
    symmetric_norm,
    value_norm,
)
from gust_torch.analysis.style import STYLE, axis_names, length_ticks
from gust_torch.evaluation.example import Example, Frame
from gust_torch.evaluation.labels import channel_label
from gust_torch.graph_spec import GraphSpec
from gust_torch.metrics.errors import normalized_rmse
from gust_torch.models.points import Spec, num_dims
from gust_torch.spec import FieldSpec

COLUMNS = ("truth", "prediction", "error")
# Inches.
BAR_WIDTH, BAR_HEIGHT = 0.11, 3.2
Array = NDArray[np.float32]


def rollout_figure(example: Example, spec: Spec) -> Figure:
    """Draw a row for each field of 1-D data (x to the right, time up), else one for each field and lead."""
    looks = {**STYLE, "xtick.top": False, "ytick.right": False, "xtick.direction": "out"}
    with matplotlib.rc_context({**looks, "ytick.direction": "out"}):
        space_time = num_dims(spec) == 1
        groups = [example.frames] if space_time else [(frame,) for frame in example.frames]
        rows = spec.num_channels * len(groups)
        width, height = (2.5, 2.1) if space_time else _panel_size(example, spec)
        figure = Figure(figsize=(3 * width + 2.4, rows * (height + 0.22) + 1.0), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False, sharex=True, sharey=True)
        axes: list[list[Axes]] = panels.tolist()
        for channel, name in enumerate(spec.names):
            block = axes[channel * len(groups) : (channel + 1) * len(groups)]
            norms = _draw_field(block, groups, channel, spec)
            _color_bars(figure, block, norms, channel_label(name, spec), (width, height))
        _label(axes, spec, space_time)
        figure.set_layout_engine("constrained", w_pad=0.07)
        figure.suptitle(_title(example), fontsize=9)
        return figure


def _title(example: Example) -> str:
    values = ", ".join(f"{name} = {value:.4g}" for name, value in example.parameters.items())
    text = f"trajectory {example.trajectory}, of median error" + (f"; {values}" if values else "")
    return textwrap.fill(text, 100)


def _panel_size(example: Example, spec: Spec) -> tuple[float, float]:
    """Inches of a panel that keeps the domain's shape."""
    (left, right), (low, high) = (
        _box(example.frames) if isinstance(spec, GraphSpec) else [(0.0, length) for length in spec.lengths]
    )
    ratio = min(max((high - low) / (right - left), 0.25), 4.0)
    width = min(max((5.0 / ratio) ** 0.5, 1.6), 3.2)
    return width, width * ratio


def _draw_field(
    block: list[list[Axes]], groups: Sequence[Sequence[Frame]], channel: int, spec: Spec
) -> list[ScalarMappable]:
    """All rows of one field.

    Returns:
        Colors of the values and of the errors.
    """
    frames = [frame for group in groups for frame in group]
    reference = np.concatenate([frame.reference[:, channel] for frame in frames])
    error = np.concatenate([(frame.prediction - frame.reference)[:, channel] for frame in frames])
    # A rollout may blow up: colors go by what is finite, and 0 stands for nothing at all.
    norm, error_norm = value_norm(reference), symmetric_norm(np.append(error[np.isfinite(error)], 0.0))
    colors = DIVERGING if norm.vmin == -(norm.vmax or 0.0) else SEQUENTIAL
    looks = {"truth": (colors, norm), "prediction": (colors, norm), "error": (ERROR, error_norm)}
    for row, group in zip(block, groups, strict=True):
        for axes, (kind, look) in zip(row, looks.items(), strict=True):
            _draw_panel(axes, [(frame, _values(frame, kind)[:, channel]) for frame in group], spec, *look)
        _note(row[2], group, channel)
        if len(group) == 1:
            _text(row[0], 0.0, f"$t - t_0$ = {group[0].time:.4g}")
    return [ScalarMappable(norm, colors), ScalarMappable(error_norm, ERROR)]


def _color_bars(
    figure: Figure,
    block: list[list[Axes]],
    colors: Sequence[ScalarMappable],
    label: str,
    panel: tuple[float, float],
) -> None:
    """One for truth and prediction, one for the error, equally thick and at most 3.2 inches high."""
    height = min(len(block) * panel[1], BAR_HEIGHT)
    for columns, mappable, text in (
        (slice(0, 2), colors[0], label),
        (slice(2, 3), colors[1], "prediction $-$ truth"),
    ):
        axes = [axes for row in block for axes in row[columns]]
        bar = figure.colorbar(
            mappable, ax=axes, extend="both", aspect=height / BAR_WIDTH,
            shrink=height / (len(block) * panel[1]), pad=0.02,
            fraction=1.5 * BAR_WIDTH / (panel[0] * len(axes) / len(block)),
        )  # fmt: skip
        bar.set_label(text, labelpad=2)


def _values(frame: Frame, kind: str) -> Array:
    """(n, c) of a column."""
    if kind == "truth":
        return frame.reference
    return frame.prediction if kind == "prediction" else frame.prediction - frame.reference


def _draw_panel(
    axes: Axes, values: Sequence[tuple[Frame, Array]], spec: Spec, colors: str, norm: Normalize
) -> None:
    """Values (n,) of one frame in the plane, or of many frames over time; gray where they are NaN."""
    axes.set_facecolor("0.92" if isinstance(spec, GraphSpec) else "0.6")
    if isinstance(spec, GraphSpec):
        _draw_particles(axes, values, spec, colors, norm)
    elif len(values) == 1 and num_dims(spec) > 1:
        draw_map(axes, values[0][1].reshape(spec.grid), spec, colors, norm)
    else:
        _draw_space_time(axes, values, spec, colors, norm)


def _draw_space_time(
    axes: Axes, values: Sequence[tuple[Frame, Array]], spec: FieldSpec, colors: str, norm: Normalize
) -> None:
    """Cells of (x, t) around the grid points and the times, which need not be equidistant."""
    x = np.linspace(0.0, spec.lengths[0], spec.grid[0] + 1)
    times = np.array([frame.time for frame, _ in values])
    middle = 0.5 * (times[1:] + times[:-1])
    edges = np.concatenate([times[:1], middle, times[-1:]])
    image = np.stack([row for _, row in values])
    axes.pcolormesh(x, edges, image, cmap=colors, norm=norm, rasterized=True)
    axes.set_xlim(0.0, spec.lengths[0])
    axes.set_ylim(times[0], times[-1])


def _draw_particles(
    axes: Axes, values: Sequence[tuple[Frame, Array]], spec: GraphSpec, colors: str, norm: Normalize
) -> None:
    """Dots where the particles truly are: (x, y), of 3-D data seen along z, of 1-D data (x, t)."""
    first = np.concatenate([frame.coordinates[:, 0] for frame, _ in values])
    if spec.num_dims == 1:
        second = np.concatenate([np.full(len(row), frame.time) for frame, row in values])
    else:
        second = np.concatenate([frame.coordinates[:, 1] for frame, _ in values])
    size = float(np.clip(3000 / len(first), 0.5, 14))
    shown = np.concatenate([row for _, row in values])
    axes.scatter(first, second, s=size, c=shown, cmap=colors, norm=norm, linewidths=0, rasterized=True)


def _box(frames: Sequence[Frame]) -> list[tuple[float, float]]:
    """Lowest and highest coordinate along the first two axes, over all frames."""
    points = np.concatenate([frame.coordinates for frame in frames])
    low, high = points.min(axis=0), points.max(axis=0)
    high = np.where(high > low, high, low + 1.0)
    return [(float(a), float(b)) for a, b in zip(low[:2], high[:2], strict=True)]


def _label(grid: list[list[Axes]], spec: Spec, space_time: bool) -> None:
    """Titles on top, axis names at the left and the bottom."""
    x, y = ("x", "y") if isinstance(spec, GraphSpec) else axis_names(spec)
    for axes, title in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(title, pad=14)
    for axes in grid[-1]:
        axes.set_xlabel(f"${x}$")
    for row in grid:
        row[0].set_ylabel("$t - t_0$" if space_time else f"${y}$")
    if isinstance(spec, FieldSpec):
        for axes in grid[-1] if space_time else (axes for row in grid for axes in row):
            times = axes.get_ylim()
            length_ticks(axes, spec.lengths)
            if space_time:
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.yaxis.set_major_formatter(ScalarFormatter())
                axes.set_ylim(times)


def _note(axes: Axes, frames: Sequence[Frame], channel: int) -> None:
    """Return the nRMSE above a panel, pooled over the leads after the start."""
    shown = [frame for frame in frames if frame.lead > 0]
    reference, prediction = (
        np.concatenate([_values(frame, kind)[:, channel] for frame in shown]).astype(np.float64)
        for kind in ("truth", "prediction")
    )
    squares = ((prediction - reference) ** 2).mean(), (reference**2).mean()
    nrmse = float(normalized_rmse(*map(torch.tensor, squares)))
    _text(axes, 1.0, f"nRMSE {nrmse:.3g}" if np.isfinite(nrmse) else "not finite")


def _text(axes: Axes, x: float, text: str) -> None:
    """Small text above a panel, at its left (0) or right (1) end."""
    axes.annotate(
        text, (x, 1.0), (0, 2), xycoords="axes fraction", textcoords="offset points",
        ha="right" if x else "left", va="bottom", fontsize=7.5,
    )  # fmt: skip
