"""The numbers of an evaluation as plain values for ``metrics.json``, and as a table for people."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gust_torch.evaluation.rollout import CURVES
from gust_torch.evaluation.scores import METRICS, QUANTILES, Scores

FORMAT_VERSION = 1
# Leads that the table shows, beside all of them together.
TABLE_COLUMNS = 5

Json = dict[str, Any]


def summarize(scores: Scores, names: Sequence[str]) -> Json:
    """Every number of an evaluation of fields of these names, as nested plain values.

    A number that is not finite is None; `num_not_finite` beside it says how many rollouts made it so.
    """
    schedule = scores.schedule
    median, low, high = schedule.lead_times().tolist()
    fields: dict[str, Json] = {}
    for channel, name in enumerate(names):
        fields[name] = {m: {c: _curve(scores, c, m, channel) for c in CURVES} for m in METRICS}
        fields[name]["overtaken_by_persistence_at_lead"] = scores.overtaken_at(channel)
    return {
        "format_version": FORMAT_VERSION,
        "num_trajectories": len(schedule.samples),
        "too_short": schedule.too_short,
        "leads": {
            "steps": list(range(1, len(median) + 1)),
            "times": median,
            "times_min": low,
            "times_max": high,
            "num_trajectories": schedule.reaching,
        },
        "summary": {
            metric: {curve: _overall(scores, curve, metric) for curve in CURVES} for metric in METRICS
        },
        "fields": fields,
    }


def _overall(scores: Scores, curve: str, metric: str) -> Json:
    """Over the horizon, mean over fields."""
    fields = [scores.statistics(curve, metric, channel) for channel in range(scores.num_channels)]
    return {
        "pooled": _plain(np.mean([field.pooled[-1] for field in fields])),
        "median": _plain(np.mean([field.quantiles[1, -1] for field in fields])),
    }


def _curve(scores: Scores, curve: str, metric: str, channel: int) -> Json:
    """At each lead, over the whole horizon, and the mean over single frames."""
    statistics = scores.statistics(curve, metric, channel)

    def numbers(part: slice | int) -> Json:
        quantiles = zip(QUANTILES, statistics.quantiles, strict=True)
        return {
            "pooled": _plain(statistics.pooled[part]),
            "mean": _plain(statistics.mean[part]),
            "quantiles": {f"{q:g}": _plain(row[part]) for q, row in quantiles},
            "num_not_finite": _plain(statistics.num_not_finite[part]),
        }

    frame_mean = _plain(np.nanmean(scores.errors(curve, metric, channel)))
    return {**numbers(slice(-1)), "horizon": {**numbers(-1), "frame_mean": frame_mean}}


def _plain(value: Any) -> Any:
    """Return a number or a list of numbers; None for each that is not finite."""
    if np.ndim(value):
        return [_plain(one) for one in value]
    return value.item() if math.isfinite(value) else None


def table(scores: Scores, names: Sequence[str]) -> str:
    """Errors at a few leads and over all of them, aligned, a line for each field, metric and curve."""
    schedule = scores.schedule
    leads = table_leads(len(schedule.reaching))
    at = [lead - 1 for lead in leads]
    rows = [["field", "metric", "lead", *map(str, leads), "all"]]
    if schedule.same_times():
        rows.append(["", "", "time", *(f"{time:.4g}" for time in schedule.lead_times()[0, at]), ""])
    if schedule.reaching[-1] < len(schedule.samples):
        rows.append(["", "", "trajectories", *(str(schedule.reaching[lead]) for lead in at), ""])
    for channel, name in enumerate(names):
        for metric, label in (("nrmse", "nRMSE"), ("nrmse", "nRMSE, median"), ("vrmse", "VRMSE")):
            for curve in CURVES:
                statistics = scores.statistics(curve, metric, channel)
                values = statistics.quantiles[1] if "median" in label else statistics.pooled
                first = curve == CURVES[0]
                words = [name if first and label == "nRMSE" else "", label if first else "", curve]
                rows.append([*words, *(f"{value:.4g}" for value in values[[*at, -1]])])
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
