"""Time of a solver step beside that of the four bare transforms that a plain implementation is made of."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft

from benchmarks.common import Row, medians
from solvers.py2d_turbulence.config import Precision, SolverConfig
from solvers.py2d_turbulence.fft import aligned_zeros, backend_name
from solvers.py2d_turbulence.initial import random_vorticity
from solvers.py2d_turbulence.stepper import Stepper, initial_state
from solvers.py2d_turbulence.team import available_cores

BATCH_SECONDS = 0.02  # of work that is timed in one go


def benchmark_solver(
    sizes: Sequence[int] = (128, 256, 512),
    dtypes: Sequence[Precision] = ("float64", "float32"),
    *,
    repeats: int = 30,
) -> list[Row]:
    """Time a step on one and two threads; the floor is two inverse and two forward real transforms.

    Args:
        sizes: Grid sizes N.
        dtypes: "float64", "float32".
        repeats: Number of times that floor and steps take turns.

    Returns:
        Rows in milliseconds a step. The solver leaves out columns that are padding, which the four
        transforms of M = 3N/2 points do not: ratios can be under 1.
    """
    return [row for dtype in dtypes for size in sizes for row in _time_size(size, dtype, repeats)]


def _time_size(size: int, dtype: Precision, repeats: int) -> list[Row]:
    count = max(1, round(BATCH_SECONDS / (4e-8 * size**2)))  # a step takes about 4e-8 N^2 seconds
    transforms = _four_transforms(size, dtype)

    def floor() -> None:
        for _ in range(count):
            transforms()

    candidates: dict[str, Callable[[], object]] = {"floor": floor}
    threads = {1: "1 thread", 2: "2 threads"} if available_cores() > 1 else {1: "1 thread"}
    for number, words in threads.items():
        candidates[words] = _steps(size, dtype, number, count)
    times = {name: 1e3 * seconds / count for name, seconds in medians(candidates, repeats=repeats).items()}
    what = f"4 bare {3 * size // 2}^2 transforms, {backend_name()}, 1 thread"
    return [
        Row(f"step, N={size} {dtype}, {words}", times[words], "ms", times["floor"], what, goal)
        for words, goal in zip(threads.values(), ("<= 1.5", ""), strict=False)
    ]


def _steps(size: int, dtype: Precision, workers: int, count: int) -> Callable[[], object]:
    """Return a function that takes `count` steps, with everything planned and compiled."""
    stepper = Stepper(SolverConfig(NX=size, dt=1e-5, dtype=dtype), workers=workers)
    state = stepper.advance(initial_state(random_vorticity(size, 0)), 2)

    def run() -> None:
        nonlocal state
        state = stepper.advance(state, count)

    return run


def _four_transforms(size: int, dtype: str) -> Callable[[], None]:
    """Return a function that does two c2r and two r2c transforms of 3N/2 x 3N/2 points."""
    padded = 3 * size // 2
    spectrum = aligned_zeros((padded, padded // 2 + 1), np.result_type(dtype, np.complex64))
    if backend_name() == "pyfftw":
        import pyfftw

        physical = pyfftw.byte_align(np.zeros((padded, padded), dtype))
        measure = ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")
        inverse = pyfftw.FFTW(spectrum, physical, axes=(0, 1), direction="FFTW_BACKWARD", flags=measure)
        forward = pyfftw.FFTW(physical, spectrum, axes=(0, 1), flags=measure)
        plans = (inverse.execute, inverse.execute, forward.execute, forward.execute)

        def execute() -> None:
            for plan in plans:
                plan()
    else:

        def execute() -> None:
            for _ in range(2):
                scipy.fft.rfft2(scipy.fft.irfft2(spectrum, s=(padded, padded)))

    return execute
