"""One-dimensional complex transforms planned on fixed arrays: pyFFTW when it is there, scipy otherwise.

Neither direction is normalized. A plan is a function without arguments that transforms its `source` into its
`target`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import scipy
import scipy.fft
from numpy.typing import NDArray

try:
    import pyfftw
except ImportError:  # the extra "fast" is not installed
    pyfftw = None

Transform = Callable[[], None]

_ALIGNMENT = 64  # bytes: a cache line
_SIMD_ALIGNMENT = 16  # bytes: what FFTW's vector code asks for


def backend_name() -> str:
    """Return "pyfftw" or "scipy"."""
    return "scipy" if pyfftw is None else "pyfftw"


def backend_version() -> str:
    """Return the backend with its version, for example "pyfftw 0.15.1"."""
    return f"scipy {scipy.__version__}" if pyfftw is None else f"pyfftw {pyfftw.__version__}"


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> NDArray[np.complexfloating]:
    """Return a zeroed array that starts on a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    buffer = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def plan(
    source: NDArray[np.complexfloating], target: NDArray[np.complexfloating], *, axis: int, inverse: bool
) -> Transform:
    """Plans the transform of `source` along `axis` into `target`; planning overwrites what both hold.

    Args:
        source: complex array or view, left unchanged by the transform unless it is `target`.
        target: array or view of the same shape and type; `source` itself for a transform in place.
        axis: the transformed axis.
        inverse: sign of the exponent, + when True. No factor 1/n in either direction.
    """
    if pyfftw is None:
        return _plan_scipy(source, target, axis=axis, inverse=inverse)
    return _plan_pyfftw(source, target, axis=axis, inverse=inverse)


def _plan_scipy(
    source: NDArray[np.complexfloating], target: NDArray[np.complexfloating], *, axis: int, inverse: bool
) -> Transform:
    in_place = source is target

    def execute() -> None:
        if inverse:
            result = scipy.fft.ifft(source, axis=axis, norm="forward", overwrite_x=in_place)
        else:
            result = scipy.fft.fft(source, axis=axis, overwrite_x=in_place)
        if result is not target:
            target[...] = result

    return execute


def _plan_pyfftw(
    source: NDArray[np.complexfloating], target: NDArray[np.complexfloating], *, axis: int, inverse: bool
) -> Transform:
    # FFTW runs scalar code on views that start off its alignment. It is cheaper to pass those through a copy.
    if source.ctypes.data % _SIMD_ALIGNMENT:
        staged = aligned_zeros(source.shape, source.dtype)
        transform = _plan_pyfftw(staged, target, axis=axis, inverse=inverse)

        def stage_source() -> None:
            staged[...] = source
            transform()

        return stage_source
    if target.ctypes.data % _SIMD_ALIGNMENT:
        staged = aligned_zeros(target.shape, target.dtype)
        transform = _plan_pyfftw(source, staged, axis=axis, inverse=inverse)

        def stage_target() -> None:
            transform()
            target[...] = staged

        return stage_target
    direction = "FFTW_BACKWARD" if inverse else "FFTW_FORWARD"
    transform = pyfftw.FFTW(source, target, axes=(axis,), direction=direction, flags=("FFTW_MEASURE",))
    return transform.execute


def export_wisdom() -> dict[str, NDArray[np.uint8]]:
    """Return what FFTW's planner measured in this process, for `import_wisdom`; empty with scipy.

    Planning times several algorithms, and another run may prefer another one, with other rounding. A restart
    that is to continue bit for bit needs the plans of the first run.
    """
    if pyfftw is None:
        return {}
    names = ("wisdom_double", "wisdom_single")
    return {
        name: np.frombuffer(text, dtype=np.uint8)
        for name, text in zip(names, pyfftw.export_wisdom()[:2], strict=True)
    }


def import_wisdom(wisdom: Mapping[str, NDArray[np.uint8]]) -> None:
    """Make later plans those of the process that exported the wisdom; other arrays are ignored."""
    if pyfftw is None or "wisdom_double" not in wisdom:
        return
    pyfftw.forget_wisdom()
    pyfftw.import_wisdom((wisdom["wisdom_double"].tobytes(), wisdom["wisdom_single"].tobytes(), b""))
