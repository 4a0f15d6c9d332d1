"""Timing of candidates against a floor measured in the same run.

Machines drift, so candidates are timed in turn (A B C A B C ...) and medians and ratios are quoted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Row:
    """One line of a benchmark table.

    Attributes:
        name: what was measured, with its size ("step, N=256 float64, 1 thread").
        value: median, in `unit`.
        unit: "ms", "frames/s", ...
        floor: the bound or peer measured in the same run, in the same unit; None where there is none.
        floor_name: what the floor is.
        goal: the largest (or smallest, for rates) ratio value/floor aimed at, as text such as "<= 1.5".
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    floor_name: str = ""
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """value / floor."""
        return None if self.floor is None else self.value / self.floor


def interleave(candidates: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, candidates taking turns; the first round is a warm-up and not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(repeats + 1):
        for name, call in candidates.items():
            start = perf_counter()
            call()
            if round_number:
                seconds[name].append(perf_counter() - start)
    return seconds


def medians(candidates: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each candidate, measured by `interleave`."""
    return {name: median(values) for name, values in interleave(candidates, repeats=repeats).items()}


def format_table(rows: list[Row]) -> str:
    """Rows as an aligned text table."""
    header = ("measurement", "median", "floor", "ratio", "goal", "floor is")
    cells = [header] + [
        (
            row.name,
            f"{row.value:.4g} {row.unit}",
            "-" if row.floor is None else f"{row.floor:.4g} {row.unit}",
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            row.goal or "-",
            row.floor_name or "-",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
