"""The numbers of an evaluation as plain values for ``metrics.json``, and as a table for people."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gust_torch.evaluation.rollout import CURVES
from gust_torch.evaluation.schedule import Schedule, stack_times
from gust_torch.evaluation.scores import METRICS, QUANTILES, Scores, Statistics

FORMAT_VERSION = 1
METRIC_LABELS = {"nrmse": "nRMSE", "vrmse": "VRMSE"}
# Rows of the table: metric, statistic, label.
TABLE_ROWS = (
    ("nrmse", "pooled", "nRMSE"),
    ("nrmse", "median", "nRMSE, median"),
    ("vrmse", "pooled", "VRMSE"),
)
# Leads that the table shows, beside all of them together.
TABLE_COLUMNS = 5
# An error that is not below this share of a yardstick's is no better.
CLEARLY = 0.95

Json = dict[str, Any]


def summarize(scores: Scores, names: Sequence[str]) -> Json:
    """Every number of an evaluation.

    Args:
        scores: Errors of all rollouts.
        names: Of the channels.

    Returns:
        Nested dictionaries of plain Python values. A number that is not finite is None; `num_not_finite`
        beside it says how many rollouts made it so.
    """
    schedule = scores.schedule
    return {
        "format_version": FORMAT_VERSION,
        "num_trajectories": len(schedule.rollouts),
        "too_short": list(schedule.too_short),
        "leads": {"steps": list(range(1, schedule.horizon + 1)), **_lead_times(schedule)},
        "summary": {
            metric: {curve: _overall(scores, curve, metric) for curve in CURVES} for metric in METRICS
        },
        "fields": {name: _field(scores, channel) for channel, name in enumerate(names)},
    }


def _field(scores: Scores, channel: int) -> Json:
    """Both metrics of all curves of one field."""
    curves = {
        metric: {
            curve: {
                **_statistics(scores.per_lead(curve, metric, channel)),
                "horizon": _horizon(scores, curve, metric, channel),
            }
            for curve in CURVES
        }
        for metric in METRICS
    }
    return {**curves, "overtaken_by_persistence_at_lead": scores.overtaken_at(channel)}


def lead_times(schedule: Schedule) -> NDArray[np.float64]:
    """(3, leads) median, smallest and largest time from start to lead, over rollouts that reach it."""
    times = stack_times(schedule.rollouts)
    since = (times - times[:, :1])[:, 1:]
    return np.array([np.nanmedian(since, axis=0), np.nanmin(since, axis=0), np.nanmax(since, axis=0)])


def same_times(schedule: Schedule) -> bool:
    """Whether a lead means the same time in all rollouts, to a thousandth of it."""
    median, low, high = lead_times(schedule)
    return bool((high - low <= 1e-3 * median).all())


def _lead_times(schedule: Schedule) -> Json:
    median, low, high = lead_times(schedule).tolist()
    counts = [schedule.num_reaching(lead) for lead in range(1, schedule.horizon + 1)]
    return {"times": median, "times_min": low, "times_max": high, "num_trajectories": counts}


def _overall(scores: Scores, curve: str, metric: str) -> Json:
    """Over the horizon, mean over fields."""
    fields = [scores.over_horizon(curve, metric, channel) for channel in range(scores.num_channels)]
    return {
        "pooled": _finite(float(np.mean([field.pooled for field in fields]))),
        "median": _finite(float(np.mean([field.median for field in fields]))),
    }


def _statistics(statistics: Statistics) -> Json:
    """Return a list for each number."""
    return {
        "pooled": _list(statistics.pooled),
        "mean": _list(statistics.mean),
        "quantiles": {f"{q:g}": _list(row) for q, row in zip(QUANTILES, statistics.quantiles, strict=True)},
        "num_not_finite": statistics.num_not_finite.tolist(),
    }


def _horizon(scores: Scores, curve: str, metric: str, channel: int) -> Json:
    """Statistics of the whole horizon, and the mean over single frames."""
    values = _first(_statistics(scores.over_horizon(curve, metric, channel)))
    frame_mean = float(np.nanmean(scores.frame_errors(curve, metric, channel)))
    return {**values, "frame_mean": _finite(frame_mean)}


def _first(values: Json) -> Json:
    """Return a number for each list."""
    return {k: _first(v) if isinstance(v, dict) else v[0] for k, v in values.items()}


def _list(values: NDArray[np.float64]) -> list[float | None]:
    return [_finite(value) for value in values.tolist()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(scores: Scores, names: Sequence[str]) -> str:
    """Errors at a few leads and over all of them, aligned, a line for each field, metric and curve."""
    schedule = scores.schedule
    leads = table_leads(schedule.horizon)
    rows = [["field", "metric", "lead", *map(str, leads), "all"]]
    if same_times(schedule):
        rows.append(["", "", "time", *(f"{lead_times(schedule)[0, lead - 1]:.4g}" for lead in leads), ""])
    if schedule.num_reaching(schedule.horizon) < len(schedule.rollouts):
        rows.append(["", "", "trajectories", *(str(schedule.num_reaching(lead)) for lead in leads), ""])
    for channel, name in enumerate(names):
        for metric, statistic, label in TABLE_ROWS:
            for curve in CURVES:
                per_lead = getattr(scores.per_lead(curve, metric, channel), statistic)
                overall = getattr(scores.over_horizon(curve, metric, channel), statistic)
                values = [*(per_lead[lead - 1] for lead in leads), overall[0]]
                first = curve == CURVES[0]
                words = [name if first and label == TABLE_ROWS[0][2] else "", label if first else "", curve]
                rows.append([*words, *(f"{value:.4g}" for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def table_leads(horizon: int) -> list[int]:
    """Up to five leads from 1 to the last, the early ones closer together."""
    return sorted({round(lead) for lead in np.geomspace(1, horizon, TABLE_COLUMNS).tolist()})


def notes(scores: Scores, names: Sequence[str]) -> list[str]:
    """Return what the table does not show, a line each."""
    schedule = scores.schedule
    lines = []
    if schedule.too_short:
        lines.append(f"trajectories too short for a single step, left out: {len(schedule.too_short)}")
    for channel, name in enumerate(names):
        bad = scores.per_lead("operator", "nrmse", channel).num_not_finite
        if bad.any():
            first = int(np.argmax(bad > 0)) + 1
            lines.append(
                f"{name}: rollouts that are not finite, from lead {first} on: {bad.max()} of "
                f"{len(schedule.rollouts)}; their errors count as infinite"
            )
        lines += [f"{name}: {line}" for line in verdict(scores, channel)]
    return lines


def verdict(scores: Scores, channel: int) -> list[str]:
    """Compare the operator with what knows nothing: standing still, each frame's own mean, zeros.

    Returns:
        How long it is better than each of them, and whether it is over all leads.
    """
    means = "each frame's mean (VRMSE 1)"
    when = ", ".join(
        f"{name} {_until(scores.overtaken_at(channel, yardstick))}"
        for name, yardstick in (("persistence", "persistence"), (means, "mean"), ("zeros (nRMSE 1)", "zeros"))
    )
    lines = [f"the operator's error is below that of {when}"]
    worse, hardly = [], []
    for name, yardstick in (
        ("persistence", "persistence"),
        ("each frame's mean", "mean"),
        ("zeros", "zeros"),
    ):
        own, other = scores.beside(channel, yardstick)
        text = f"{name} ({own:.3g} against {other:.3g})"
        if not own <= other:
            worse.append(text)
        elif own > CLEARLY * other:
            hardly.append(text)
    if not worse and not hardly:
        return [*lines, "over all leads it is better than each of these"]
    if worse:
        lines.append(f"over all leads it is worse than {' and '.join(worse)}: of no use as it is")
    if hardly:
        lines.append(f"over all leads it is no better than {' and '.join(hardly)}")
    return lines


def _until(lead: int | None) -> str:
    return "at every lead" if lead is None else "at no lead" if lead == 1 else f"before lead {lead}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if i < 3 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
