"""Figures of an evaluation: errors against lead time, and the fields of one rollout."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from gust_torch.evaluation.report import METRIC_LABELS, lead_times, same_times
from gust_torch.evaluation.rollout import Example, Frame
from gust_torch.evaluation.scores import METRICS, Scores, Statistics
from gust_torch.figures import (
    BLACK,
    BLUE,
    GRAY,
    NOTE,
    STYLE,
    VERMILLION,
    Comparison,
    Looks,
    axis_names,
    comparison_figure,
    draw_map,
    field_label,
    length_ticks,
    panel_size,
)
from gust_torch.graph_spec import GraphSpec
from gust_torch.metrics.errors import normalized_rmse
from gust_torch.models.points import Spec, num_dims
from gust_torch.spec import FieldSpec

WIDTH, HEIGHT = 3.6, 2.7
LINES: dict[str, dict[str, Any]] = {
    "operator": {"color": VERMILLION, "linestyle": "-", "linewidth": 1.8, "zorder": 3},
    "persistence": {"color": BLACK, "linestyle": "--", "linewidth": 1.3, "zorder": 2},
    "autoencoder": {"color": BLUE, "linestyle": ":", "linewidth": 1.8, "zorder": 2},
}
CURVE_LABELS = {"operator": "operator", "persistence": "persistence", "autoencoder": "autoencoder alone"}
# An axis is logarithmic where what it shows spans more than this factor.
LOG_SPAN = 5.0
# A rollout that blows up leaves the picture at so many times the yardsticks; an exact one ends so far below.
LARGEST, LOWEST_SHARE = 10.0, 1e-6
# Quartiles of fewer values say nothing.
FEWEST_FOR_BANDS = 4


def curves_figure(scores: Scores, spec: Spec) -> Figure:
    """Draw a column for each field and a row for each metric: pooled, thin medians, bands of quartiles."""
    with matplotlib.rc_context(STYLE):
        columns = spec.num_channels
        figure = Figure(
            figsize=(max(5.2, WIDTH * columns), HEIGHT * len(METRICS) + 0.5), layout="constrained"
        )
        grid = figure.subplots(len(METRICS), columns, squeeze=False, sharex=True, sharey="row")
        lead, label = _lead_axis(scores)
        for row, metric in enumerate(METRICS):
            drawn = [_draw(axes, scores, metric, channel, lead) for channel, axes in enumerate(grid[row])]
            shown = {curve: np.hstack([values[curve] for values in drawn]) for curve in LINES}
            _set_scale(grid[row, 0], shown)
            grid[row, 0].set_ylabel(METRIC_LABELS[metric])
            for axes in grid[row]:
                if axes.get_ylim()[1] > 1:
                    axes.axhline(1.0, color=GRAY, linewidth=0.7, zorder=0)
        for channel, name in enumerate(spec.names):
            grid[0, channel].set_title(channel_label(name, spec))
            grid[-1, channel].set_xlabel(label)
        figure.supxlabel(_note(scores), fontsize=7, color=NOTE)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
        return figure


def _lead_axis(scores: Scores) -> tuple[NDArray[np.float64], str]:
    """Lead times and the axis label; step numbers where a step means different times."""
    if same_times(scores.schedule):
        return lead_times(scores.schedule)[0], "lead time $t - t_0$"
    return np.arange(1.0, scores.schedule.horizon + 1), "lead (steps)"


def _note(scores: Scores) -> str:
    """Return what the lines are, and over what, below the figure."""
    counts = scores.reaching
    unit = "Times in the data's unit." if same_times(scores.schedule) else "Steps differ in time."
    if counts[0] == 1:
        return f"One trajectory. {unit}"
    some = f", {counts[-1]} of which reach the last lead" if counts[-1] < counts[0] else ""
    bands = "; thin, bands: their median, quartiles" if counts[0] >= FEWEST_FOR_BANDS else ""
    return f"Lines: {counts[0]} trajectories pooled{some}{bands}. {unit}"


def _draw(
    axes: Axes, scores: Scores, metric: str, channel: int, lead: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """One panel; returns what each curve shows of it, the pooled errors first."""
    shown = {}
    for curve, style in LINES.items():
        statistics = scores.per_lead(curve, metric, channel)
        # A lone lead would draw nothing.
        marker = "o" if len(lead) == 1 else None
        axes.plot(lead, _finite(statistics.pooled), label=CURVE_LABELS[curve], marker=marker, **style)
        shown[curve] = statistics.pooled[None]
        if len(lead) > 1 and len(scores.schedule.rollouts) >= FEWEST_FOR_BANDS:
            low, median, high = np.minimum(statistics.quantiles, 1e30)
            axes.plot(lead, median, **{**style, "linewidth": 0.7})
            axes.fill_between(lead, low, high, color=style["color"], alpha=0.15, linewidth=0, zorder=1)
            shown[curve] = np.vstack([statistics.pooled, statistics.quantiles])
        if curve == "operator":
            _mark_blow_up(axes, statistics, lead)
    if len(lead) > 1:
        axes.set_xlim(lead[0], lead[-1])
    return shown


def _set_scale(axes: Axes, shown: dict[str, NDArray[np.float64]]) -> None:
    """Limits that show what is finite, but no more than `LARGEST` times the yardsticks' pooled errors.

    Beyond lie rollouts that blow up, and ratios to a reference that has decayed to nothing. Logarithmic where
    the values span much.
    """
    values = _positive(np.concatenate(list(shown.values())))
    if not values.size:
        return
    yardsticks = _positive(np.array([rows[0] for curve, rows in shown.items() if curve != "operator"]))
    top = min(float(values.max()), LARGEST * float((yardsticks if yardsticks.size else values).max()))
    bottom = max(float(values.min()), LOWEST_SHARE * top)
    if top > LOG_SPAN * bottom:
        axes.set_yscale("log")
        axes.set_ylim(bottom / 1.5, top * 1.8)
    else:
        axes.set_ylim(0.0, top * 1.2)


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values) & (values > 0)]


def _mark_blow_up(axes: Axes, statistics: Statistics, lead: NDArray[np.float64]) -> None:
    """Say where rollouts are not finite."""
    bad = statistics.num_not_finite
    if bad.any():
        first = int(np.argmax(bad > 0))
        axes.axvline(float(lead[first]), color=VERMILLION, linewidth=0.8, linestyle="-.")
        text = axes.text(
            0.98, 0.03, f"{bad.max()} not finite, from the line on", transform=axes.transAxes,
            ha="right", va="bottom", fontsize=7, color=NOTE,
        )  # fmt: skip
        text.set_bbox({"facecolor": "white", "linewidth": 0, "pad": 1})


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a gap where a value is infinite."""
    return np.where(np.isfinite(values), values, np.nan)


def channel_label(name: str, spec: Spec) -> str:
    """Label of a channel: a lone letter as a symbol, else name and symbol as in all figures."""
    if len(name) == 1:
        return f"${name}$"
    return name.replace("_", " ") if isinstance(spec, GraphSpec) else field_label(name, spec).text


def rollout_figure(example: Example, spec: Spec) -> Figure:
    """Draw truth, prediction and error: of 1-D data over x and time, else at each kept lead."""
    space_time = num_dims(spec) == 1
    groups = [example.frames] if space_time else [(frame,) for frame in example.frames]
    x, y = ("x", "y") if isinstance(spec, GraphSpec) else axis_names(spec)

    def draw(axes: Axes, row: Comparison, values: NDArray[np.float32], colors: str, norm: Normalize) -> None:
        axes.set_facecolor("0.92" if isinstance(spec, GraphSpec) else "0.6")  # where values are NaN
        if isinstance(spec, GraphSpec):
            _draw_particles(axes, row.place, values, spec, colors, norm)
        elif space_time:
            _draw_space_time(axes, row.place, values.reshape(len(row.place), -1), spec, colors, norm)
        else:
            draw_map(axes, values.reshape(spec.grid), spec, colors, norm)

    def ticks(axes: Axes) -> None:
        if isinstance(spec, FieldSpec):
            times = axes.get_ylim()
            length_ticks(axes, spec.lengths)
            if space_time:
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.yaxis.set_major_formatter(ScalarFormatter())
                axes.set_ylim(times)

    fields = [
        (channel_label(name, spec), [_comparison(group, channel, space_time) for group in groups])
        for channel, name in enumerate(spec.names)
    ]
    looks = Looks(
        draw=draw,
        panel=(2.5, 2.1) if space_time else panel_size(*_domain(example.frames, spec)),
        axis_labels=(f"${x}$", "$t - t_0$" if space_time else f"${y}$"),
        ticks=ticks,
        titles=("truth", "prediction", "error"),
        error_label="prediction $-$ truth",
        title=_title(example),
    )
    return comparison_figure(fields, looks)


def _title(example: Example) -> str:
    values = ", ".join(f"{name} = {value:.4g}" for name, value in example.parameters.items())
    text = f"trajectory {example.trajectory}, of median error" + (f"; {values}" if values else "")
    return textwrap.fill(text, 100)


def _comparison(frames: Sequence[Frame], channel: int, space_time: bool) -> Comparison:
    """One row, with the nRMSE pooled over the leads after the start."""
    reference, prediction = (
        np.concatenate([getattr(frame, name)[:, channel] for frame in frames])
        for name in ("reference", "prediction")
    )
    after = np.concatenate([np.full(len(frame.reference), frame.lead > 0) for frame in frames])
    true, error = (values[after].astype(np.float64) for values in (reference, prediction - reference))
    nrmse = float(normalized_rmse(*(torch.tensor((values**2).mean()) for values in (error, true))))
    return Comparison(
        reference,
        prediction,
        first="" if space_time else f"$t - t_0$ = {frames[0].time:.4g}",
        last=f"nRMSE {nrmse:.3g}" if np.isfinite(nrmse) else "not finite",
        place=frames,
    )


def _draw_space_time(
    axes: Axes,
    frames: Sequence[Frame],
    image: NDArray[np.float32],
    spec: FieldSpec,
    colors: str,
    norm: Normalize,
) -> None:
    """Cells of (x, t) around the grid points and the times, which need not be equidistant."""
    x = np.linspace(0.0, spec.lengths[0], spec.grid[0] + 1)
    times = np.array([frame.time for frame in frames])
    edges = np.concatenate([times[:1], 0.5 * (times[1:] + times[:-1]), times[-1:]])
    axes.pcolormesh(x, edges, image, cmap=colors, norm=norm, rasterized=True)
    axes.set_xlim(0.0, spec.lengths[0])
    axes.set_ylim(times[0], times[-1])


def _draw_particles(
    axes: Axes,
    frames: Sequence[Frame],
    values: NDArray[np.float32],
    spec: GraphSpec,
    colors: str,
    norm: Normalize,
) -> None:
    """Dots where the particles truly are: (x, y), of 3-D data seen along z, of 1-D data (x, t)."""
    first = np.concatenate([frame.coordinates[:, 0] for frame in frames])
    if spec.num_dims == 1:
        second = np.concatenate([np.full(len(frame.coordinates), frame.time) for frame in frames])
    else:
        second = np.concatenate([frame.coordinates[:, 1] for frame in frames])
    size = float(np.clip(3000 / len(first), 0.5, 14))
    axes.scatter(first, second, s=size, c=values, cmap=colors, norm=norm, linewidths=0, rasterized=True)


def _domain(frames: Sequence[Frame], spec: Spec) -> tuple[float, float]:
    """Lengths along the first two axes; of particles those of the box that holds them at all times."""
    if isinstance(spec, FieldSpec):
        return spec.lengths
    points = np.concatenate([frame.coordinates[:, :2] for frame in frames])
    sides = points.max(axis=0) - points.min(axis=0)
    width, height = np.where(sides > 0, sides, 1.0).tolist()
    return width, height
