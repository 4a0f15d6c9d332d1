"""One-dimensional complex transforms planned on fixed arrays: pyFFTW when it is there, scipy otherwise.

Neither direction is normalized. A plan is a function without arguments that transforms its `source` into its
`target`.

Which algorithm FFTW's planner times as the fastest varies from run to run, and with it the rounding. So its
plans are kept between runs: the first run of a transform size on a machine measures for about a second, later
ones reuse its plans and give the same result, bit for bit. They lie in $XDG_CACHE_HOME/gust_torch
(~/.cache/gust_torch) and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy
import scipy.fft
from numpy.typing import NDArray

from solvers.common.checkpoint import load_checkpoint, save_checkpoint

try:
    import pyfftw
except ImportError:  # the extra "fast" is not installed
    pyfftw = None

logger = logging.getLogger(__name__)

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
    """Plan the transform of `source` along `axis` into `target`; planning overwrites what both hold.

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


def cached_wisdom_path(padded: int, dtype: str) -> Path:
    """Return the file for transforms of one size and precision on this kind of processor.

    Args:
        padded: length of the transforms.
        dtype: "float64" or "float32".
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = f"{backend_version()} {_processor()}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return root / "gust_torch" / f"fft-{padded}-{dtype}-{digest}.npz"


def load_wisdom(path: Path) -> bool:
    """Make later plans those of the first run; returns False where there was none or it cannot be read."""
    if not path.is_file():
        return False
    try:
        import_wisdom(load_checkpoint(path).arrays)
    except ValueError as error:
        logger.warning("warning: %s", error)
        return False
    return True


def store_wisdom(path: Path) -> None:
    """Save the plans of this process; where that fails the next run has to plan anew."""
    wisdom = export_wisdom()
    if not wisdom:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, {name: np.asarray(array) for name, array in wisdom.items()}, {})
    except OSError as error:
        logger.info("FFT plans are not kept for later runs: %s", error)


def _processor() -> str:
    """Return the name of the processor model, or of its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line
    except OSError:
        pass
    return platform.machine()
