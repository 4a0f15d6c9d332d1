"""Timing of candidates against a floor measured in the same run, tables of the figures, and files to read.

Machines drift, so candidates are timed in turn (A B C A B C ...) and medians and ratios are quoted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from solvers.common.hdf5_utils import HDF5Writer


@dataclass(frozen=True)
class Row:
    """One line of a benchmark table.

    Attributes:
        name: What was measured, with its size ("step, N=256 float64, 1 thread").
        value: Median, in `unit`.
        unit: "ms", "frames/s", ...
        floor: The bound or peer measured in the same run, in the same unit; None where there is none.
        floor_name: What the floor is.
        goal: The largest (or smallest, for rates) ratio value/floor aimed at, as text such as "<= 1.5".
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


def rate(
    name: str, amount: float, unit: str, seconds: float, floor: float, floor_name: str, goal: str = ""
) -> Row:
    """Return a row of amounts a second, from our seconds and those of the floor."""
    return Row(name, amount / seconds, unit, amount / floor, floor_name, goal)


def medians(candidates: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each candidate; they take turns, and the first round is a warm-up and not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats + 1):
        for name, call in candidates.items():
            start = perf_counter()
            call()
            seconds[name].append(perf_counter() - start)
    return {name: median(values[1:]) for name, values in seconds.items()}


def format_table(rows: list[Row]) -> str:
    """Rows as an aligned text table."""
    cells = [("measurement", "median", "floor", "ratio", "goal", "floor is")]
    for row in rows:
        floor = "-" if row.floor is None else f"{row.floor:.4g} {row.unit}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        value = f"{row.value:.4g} {row.unit}"
        cells.append((row.name, value, floor, ratio, row.goal or "-", row.floor_name or "-"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(lines)


def write_frames(path: Path, field: str, frames: np.ndarray, num_times: int | None = None) -> None:
    """Write frames (n, h, w) of a periodic unit square, in trajectories of `num_times` (one by default)."""
    num, h, w = frames.shape
    metadata: dict[str, str | int | float | bool] = {
        "solver": "noise",
        "boundary_x": "periodic",
        "boundary_y": "periodic",
        "grid_y": "uniform",
        "length_x": 1.0,
        "length_y": 1.0,
        "package_version": "",
        "git_commit": "",
    }
    axes = {"x": np.arange(h) / h, "y": np.arange(w) / w}
    trajectory, time = np.divmod(np.arange(num), num_times or num)
    with HDF5Writer(path, fields={field: (h, w)}, coordinates=axes, metadata=metadata) as writer:
        writer.append({field: frames}, time=time.astype(float), trajectory=trajectory.astype(np.int32))
        writer.close(complete=True)
