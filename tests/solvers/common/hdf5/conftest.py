"""Small files of the common format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer

METADATA = {
    "solver": "test",
    "boundary_x": "periodic",
    "boundary_y": "wall",
    "grid_y": "uniform",
    "package_version": "0",
    "git_commit": "unknown",
}


@pytest.fixture
def make_frame() -> Callable[..., np.ndarray]:
    """Frame number -> reproducible float32 frame."""

    def frame(number: int, shape: tuple[int, ...] = (8, 6)) -> np.ndarray:
        return np.random.default_rng(number).standard_normal(shape).astype(np.float32)

    return frame


@pytest.fixture
def open_writer(tmp_path: Path) -> Callable[..., HDF5Writer]:
    """Open a writer on tmp_path/data.h5 with a full set of metadata."""

    def writer(
        *,
        fields: Mapping[str, tuple[int, ...]] = {"vorticity": (8, 6)},
        scalars: Sequence[str] = (),
        parameters: Mapping[str, Sequence[float]] = {},
        compression: str | None = None,
        overwrite: bool = False,
    ) -> HDF5Writer:
        height, width = next(iter(fields.values()))[:2]
        return HDF5Writer(
            tmp_path / "data.h5",
            fields=fields,
            coordinates={"x": np.arange(height), "y": np.arange(width)},
            metadata=METADATA,
            parameters=parameters,
            scalars=scalars,
            compression=compression,
            overwrite=overwrite,
        )

    return writer


@pytest.fixture
def write_file(
    tmp_path: Path, open_writer: Callable[..., HDF5Writer], make_frame: Callable[..., np.ndarray]
) -> Callable[..., Path]:
    """Write a finished file of `count` frames of 0.5 time units each."""

    def write(count: int = 4, *, complete: bool = True, compression: str | None = None) -> Path:
        with open_writer(compression=compression) as writer:
            for number in range(count):
                writer.append({"vorticity": make_frame(number)}, time=0.5 * number)
            writer.close(complete=complete)
        return tmp_path / "data.h5"

    return write
