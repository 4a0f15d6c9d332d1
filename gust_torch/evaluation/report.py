"""The numbers of an evaluation as plain values for ``metrics.json``, and as a table for people."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gust_torch.evaluation.rollout import CURVES
from gust_torch.evaluation.scores import METRICS, QUANTILES, Scores, Statistics

FORMAT_VERSION = 1
# Rows of the table: metric, statistic, label.
TABLE_ROWS = (
    ("nrmse", "pooled", "nRMSE"),
    ("nrmse", "median", "nRMSE, median"),
    ("vrmse", "pooled", "VRMSE"),
)
# Leads that the table shows, beside all of them together.
TABLE_COLUMNS = 5

Json = dict[str, Any]


def summarize(scores: Scores, names: Sequence[str]) -> Json:
    """Every number of an evaluation as nested plain values.

    A number that is not finite is None; `num_not_finite` beside it says how many rollouts made it so.

    Args:
        scores: Errors of all rollouts.
        names: Of the channels.
    """
    schedule = scores.schedule
    median, low, high = schedule.lead_times().tolist()
    return {
        "format_version": FORMAT_VERSION,
        "num_trajectories": len(schedule.rollouts),
        "too_short": list(schedule.too_short),
        "leads": {
            "steps": list(range(1, schedule.horizon + 1)),
            "times": median,
            "times_min": low,
            "times_max": high,
            "num_trajectories": schedule.reaching,
        },
        "summary": {
            metric: {curve: _overall(scores, curve, metric) for curve in CURVES} for metric in METRICS
        },
        "fields": {
            name: {
                **{m: {c: _curve(scores, c, m, channel) for c in CURVES} for m in METRICS},
                "overtaken_by_persistence_at_lead": scores.overtaken_at(channel),
            }
            for channel, name in enumerate(names)
        },
    }


def _overall(scores: Scores, curve: str, metric: str) -> Json:
    """Over the horizon, mean over fields."""
    fields = [scores.over_horizon(curve, metric, channel) for channel in range(scores.num_channels)]
    return {
        name: _finite(float(np.mean([getattr(field, name) for field in fields])))
        for name in ("pooled", "median")
    }


def _curve(scores: Scores, curve: str, metric: str, channel: int) -> Json:
    """At each lead, over the whole horizon, and the mean over single frames."""
    horizon = _statistics(scores.over_horizon(curve, metric, channel), lambda row: row[0])
    frame_mean = _finite(float(np.nanmean(scores.errors(curve, metric, channel))))
    leads = _statistics(scores.per_lead(curve, metric, channel), lambda row: row)
    return {**leads, "horizon": {**horizon, "frame_mean": frame_mean}}


def _statistics(statistics: Statistics, shape: Callable[[list[Any]], Any]) -> Json:
    """Return a list, shaped, for each number."""

    def plain(row: NDArray[Any]) -> Any:
        return shape([_finite(value) for value in row.tolist()])

    return {
        "pooled": plain(statistics.pooled),
        "mean": plain(statistics.mean),
        "quantiles": {f"{q:g}": plain(row) for q, row in zip(QUANTILES, statistics.quantiles, strict=True)},
        "num_not_finite": plain(statistics.num_not_finite),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(scores: Scores, names: Sequence[str]) -> str:
    """Errors at a few leads and over all of them, aligned, a line for each field, metric and curve."""
    schedule = scores.schedule
    leads = table_leads(schedule.horizon)
    rows = [["field", "metric", "lead", *map(str, leads), "all"]]
    if schedule.same_times():
        rows.append(["", "", "time", *(f"{schedule.lead_times()[0, lead - 1]:.4g}" for lead in leads), ""])
    if schedule.reaching[-1] < len(schedule.rollouts):
        rows.append(["", "", "trajectories", *(str(schedule.reaching[lead - 1]) for lead in leads), ""])
    for channel, name in enumerate(names):
        for metric, statistic, label in TABLE_ROWS:
            for curve in CURVES:
                per_lead = getattr(scores.per_lead(curve, metric, channel), statistic)
                overall = getattr(scores.over_horizon(curve, metric, channel), statistic)
                values = [*(per_lead[lead - 1] for lead in leads), overall[0]]
                rows.append([name, label, curve, *(f"{value:.4g}" for value in values)])
                name = label = ""  # once
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:  # words to the left, numbers to the right
        pairs = list(zip(row, widths, strict=True))
        cells = [text.ljust(width) for text, width in pairs[:3]]
        lines.append("  ".join([*cells, *(text.rjust(width) for text, width in pairs[3:])]).rstrip())
    return "\n".join(lines)


def table_leads(horizon: int) -> list[int]:
    """Up to five leads from 1 to the last, the early ones closer together."""
    return sorted({round(lead) for lead in np.geomspace(1, horizon, TABLE_COLUMNS).tolist()})
