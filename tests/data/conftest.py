"""Small real files for the tests of gust_torch.data."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer

METADATA = {
    "solver": "test",
    "boundary_x": "periodic",
    "boundary_y": "periodic",
    "grid_y": "uniform",
    "package_version": "0",
    "git_commit": "0",
}


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., str]:
    """Write fields (n, H, W[, C]) with times 0, 0.1, ... as a complete file of the test's folder."""

    def write(
        name: str,
        fields: Mapping[str, np.ndarray],
        trajectory: Sequence[int] | None = None,
        compression: str | None = None,
    ) -> str:
        path = tmp_path / name
        n, h, w = next(iter(fields.values())).shape[:3]
        with HDF5Writer(
            path,
            fields={key: value.shape[1:] for key, value in fields.items()},
            coordinates={"x": np.arange(h) / h, "y": np.arange(w) / w},
            metadata=METADATA,
            compression=compression,
        ) as writer:
            ids = np.zeros(n, int) if trajectory is None else np.asarray(trajectory)
            writer.append(fields, time=0.1 * np.arange(n), trajectory=ids)
            writer.close(complete=True)
        return str(path)

    return write
