"""Keeps FFTW's measured plans between runs, so that a command gives the same result, bit for bit, every time.

Which algorithm the planner times as the fastest varies from run to run, and with it the rounding. The first
run of a transform size on a machine measures for about a second; later ones reuse its plans.
The files lie in $XDG_CACHE_HOME/gust_torch (~/.cache/gust_torch) and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path

import numpy as np

from solvers.common.checkpoint import load_checkpoint, save_checkpoint
from solvers.py2d_turbulence.fft import backend_version, export_wisdom, import_wisdom

logger = logging.getLogger(__name__)


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
