"""Figures of an evaluation: errors against lead time, and the fields of one rollout."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from gust_torch.evaluation.rollout import Example, Frame
from gust_torch.evaluation.schedule import Schedule
from gust_torch.evaluation.scores import METRICS, Scores, Statistics
from gust_torch.figures import (
    BLACK,
    BLUE,
    GRAY,
    NOTE,
    STYLE,
    VERMILLION,
    Array,
    Comparison,
    comparison_figure,
    draw_map,
    field_label,
    length_ticks,
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
# An axis is logarithmic where what it shows spans more than this factor.
LOG_SPAN = 5.0
# A rollout that blows up leaves the picture at so many times the yardsticks; an exact one ends so far below.
LARGEST, LOWEST_SHARE = 10.0, 1e-6
# Quartiles of fewer values say nothing.
FEWEST_FOR_BANDS = 4


def curves_figure(scores: Scores, spec: Spec) -> Figure:
    """Draw a column for each field and a row for each metric: pooled, thin medians, bands of quartiles."""
    schedule, size = scores.schedule, (max(5.2, WIDTH * spec.num_channels), HEIGHT * len(METRICS) + 0.5)
    same = schedule.same_times()
    # Where a step means different times, steps are counted.
    lead = schedule.lead_times()[0] if same else np.arange(1.0, schedule.samples.shape[1])
    bands = len(lead) > 1 and len(schedule.samples) >= FEWEST_FOR_BANDS
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(METRICS), spec.num_channels, squeeze=False, sharex=True, sharey="row")
        for row, metric, label in zip(grid, METRICS, ("nRMSE", "VRMSE"), strict=True):
            columns = [
                {curve: scores.statistics(curve, metric, channel) for curve in LINES}
                for channel in range(spec.num_channels)
            ]
            for axes, curves in zip(row, columns, strict=True):
                _draw_curves(axes, curves, lead, bands)
            _set_scale(row[0], columns, bands)
            row[0].set_ylabel(label)
            for axes in row:
                if axes.get_ylim()[1] > 1:
                    axes.axhline(1.0, color=GRAY, linewidth=0.7, zorder=0)
        for axes, name in zip(grid.T, spec.names, strict=True):
            axes[0].set_title(field_label(name, spec))
            axes[-1].set_xlabel("lead time $t - t_0$" if same else "lead (steps)")
        figure.supxlabel(textwrap.fill(_caption(schedule), int(18 * size[0])), fontsize=7, color=NOTE)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
        return figure


def _caption(schedule: Schedule) -> str:
    """Say what the lines are, and over what."""
    counts = schedule.reaching
    unit = "Times in the data's unit." if schedule.same_times() else "Steps differ in time."
    if counts[0] == 1:
        return f"One trajectory. {unit}"
    some = f", {counts[-1]} of which reach the last lead" if counts[-1] < counts[0] else ""
    bands = "; thin, bands: their median, quartiles" if counts[0] >= FEWEST_FOR_BANDS else ""
    return f"Lines: {counts[0]} trajectories pooled{some}{bands}. {unit}"


def _draw_curves(
    axes: Axes, curves: Mapping[str, Statistics], lead: NDArray[np.float64], bands: bool
) -> None:
    """One panel."""
    for curve, style in LINES.items():
        pooled = np.where(np.isfinite(curves[curve].pooled), curves[curve].pooled, np.nan)[:-1]
        label = "autoencoder alone" if curve == "autoencoder" else curve
        # A lone lead would draw nothing.
        axes.plot(lead, pooled, label=label, marker="o" if len(lead) == 1 else None, **style)
        if bands:
            low, median, high = np.minimum(curves[curve].quantiles, 1e30)[:, :-1]
            axes.plot(lead, median, **{**style, "linewidth": 0.7})
            axes.fill_between(lead, low, high, color=style["color"], alpha=0.15, linewidth=0, zorder=1)
    bad = curves["operator"].num_not_finite[:-1]
    if bad.any():
        axes.axvline(float(lead[np.argmax(bad > 0)]), color=VERMILLION, linewidth=0.8, linestyle="-.")
        axes.text(
            0.98, 0.03, f"{bad.max()} not finite, from the line on", transform=axes.transAxes,
            ha="right", va="bottom", fontsize=7, color=NOTE,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
        )  # fmt: skip
    if len(lead) > 1:
        axes.set_xlim(lead[0], lead[-1])


def _set_scale(axes: Axes, columns: Sequence[Mapping[str, Statistics]], bands: bool) -> None:
    """Limits that show what is finite, but no more than `LARGEST` times the yardsticks' pooled errors.

    Beyond lie rollouts that blow up, and ratios to a reference that has decayed to nothing. Logarithmic where
    the values span much.
    """
    drawn = [(name, curve) for curves in columns for name, curve in curves.items()]
    shown = [curve.pooled[:-1] for _, curve in drawn]
    if bands:
        shown += [curve.quantiles[:, :-1].ravel() for _, curve in drawn]
    others = [curve.pooled[:-1] for name, curve in drawn if name != "operator"]
    values, yardsticks = (np.concatenate(rows) for rows in (shown, others))
    values, yardsticks = (rows[np.isfinite(rows) & (rows > 0)] for rows in (values, yardsticks))
    if not values.size:
        return
    top = min(float(values.max()), LARGEST * float((yardsticks if yardsticks.size else values).max()))
    bottom = max(float(values.min()), LOWEST_SHARE * top)
    if top > LOG_SPAN * bottom:
        axes.set_yscale("log")
        axes.set_ylim(bottom / 1.5, top * 1.8)
    else:
        axes.set_ylim(0.0, top * 1.2)


def rollout_figure(example: Example, spec: Spec) -> Figure:
    """Draw truth, prediction and error: of 1-D data over x and time, else at each kept lead."""
    space_time = num_dims(spec) == 1
    groups = [example.frames] if space_time else [(frame,) for frame in example.frames]

    def draw(axes: Axes, row: int, values: Array, colors: str, norm: Normalize) -> None:
        _draw_frames(axes, groups[row], values, spec, colors, norm)

    fields = [
        (field_label(name, spec), [_comparison(group, channel, space_time) for group in groups])
        for channel, name in enumerate(spec.names)
    ]
    parameters = ", ".join(f"{name} = {value:.4g}" for name, value in example.parameters.items())
    title = f"trajectory {example.trajectory}, of median error" + (f"; {parameters}" if parameters else "")
    return comparison_figure(
        fields,
        draw,
        spec,
        domain=(2.5, 2.1) if space_time else _domain(example.frames, spec),
        titles=("truth", "prediction", "error"),
        error_label="prediction $-$ truth",
        title=textwrap.fill(title, 100),
        y_label="$t - t_0$" if space_time else None,
    )


def _comparison(frames: Sequence[Frame], channel: int, space_time: bool) -> Comparison:
    """One row, with the nRMSE pooled over the leads after the start."""
    reference, prediction = (
        np.concatenate([getattr(frame, name)[:, channel] for frame in frames])
        for name in ("reference", "prediction")
    )
    after = sum(len(frame.reference) for frame in frames if frame.lead == 0)
    squares = (np.square(v[after:], dtype=np.float64).mean() for v in (prediction - reference, reference))
    nrmse = float(normalized_rmse(*map(torch.tensor, squares)))
    return Comparison(
        reference,
        prediction,
        left="" if space_time else f"$t - t_0$ = {frames[0].time:.4g}",
        right=f"nRMSE {nrmse:.3g}" if np.isfinite(nrmse) else "not finite",
    )


def _draw_frames(
    axes: Axes, frames: Sequence[Frame], values: Array, spec: Spec, colors: str, norm: Normalize
) -> None:
    """Draw a grid, cells of (x, t), or dots where particles truly are: (x, y), of 1-D data (x, t)."""
    times = np.array([frame.time for frame in frames])
    if isinstance(spec, GraphSpec):
        axes.set_facecolor("0.92")
        points = np.concatenate([frame.coordinates for frame in frames])
        second = times.repeat([len(f.coordinates) for f in frames]) if spec.num_dims == 1 else points[:, 1]
        size = float(np.clip(3000 / len(points), 0.5, 14))
        axes.scatter(
            points[:, 0], second, s=size, c=values, cmap=colors, norm=norm, linewidths=0, rasterized=True
        )
        return
    axes.set_facecolor("0.6")  # where values are NaN
    if num_dims(spec) == 2:
        draw_map(axes, values.reshape(spec.grid), spec, colors, norm)
        return
    # Around the grid points and the times, which need not be equidistant.
    x = np.linspace(0.0, spec.lengths[0], spec.grid[0] + 1)
    edges = np.concatenate([times[:1], 0.5 * (times[1:] + times[:-1]), times[-1:]])
    image = values.reshape(len(frames), -1)
    axes.pcolormesh(x, edges, image, cmap=colors, norm=norm, rasterized=True)
    length_ticks(axes.xaxis, spec.lengths[0])
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _domain(frames: Sequence[Frame], spec: Spec) -> tuple[float, float]:
    """Lengths along the first two axes; of particles those of the box that holds them at all times."""
    if isinstance(spec, FieldSpec):
        return spec.lengths
    points = np.concatenate([frame.coordinates[:, :2] for frame in frames])
    sides = points.max(axis=0) - points.min(axis=0)
    width, height = np.where(sides > 0, sides, 1.0).tolist()
    return width, height
