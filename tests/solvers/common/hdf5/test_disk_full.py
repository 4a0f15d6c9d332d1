"""A disk that fills up: one clear line, and the frames before it stay readable.

A file size limit stands for the full disk. It is set under the space that the writer has already reserved, so
that HDF5's own write calls are the ones that fail.
"""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, validate

LIMITED = """
import resource, signal, sys
import numpy as np
from solvers.common.hdf5_utils import HDF5Writer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, side = sys.argv[1], int(sys.argv[2])
axis = np.arange(side)
metadata = {"solver": "test", "boundary_x": "periodic", "boundary_y": "periodic", "grid_y": "uniform",
            "package_version": "0", "git_commit": "unknown"}
writer = HDF5Writer(path, fields={"omega": (side, side)}, coordinates={"x": axis, "y": axis},
                    metadata=metadata, scalars=["energy"])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
with writer:
    try:
        while True:
            n = writer.num_samples
            writer.append({"omega": np.full((side, side), n)}, time=n, scalars={"energy": n})
    except OSError as error:
        print(writer.num_samples)
        print(error)
"""


@pytest.mark.parametrize("side", [100, 16])
def test_frames_before_a_full_disk_stay_and_the_run_goes_on(tmp_path: Path, side: int) -> None:
    path = tmp_path / "data.h5"
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(side)], capture_output=True, text=True, check=True
    )
    count, message = int(result.stdout.splitlines()[0]), result.stdout.splitlines()[1]
    assert message == (
        f"{path}: writing sample {count} failed (File too large), the {count} samples before it are intact; "
        "make room, then continue with --resume"
    )
    assert count > 10
    for opened in (h5py.File(path, "r"), open_file(path)):
        with opened as file:
            assert num_samples(file) == count
            np.testing.assert_array_equal(file["fields/omega"][:count, 0, -1], np.arange(count))
    assert validate(path) == []
    with HDF5Writer.resume(path, num_samples=count) as writer:
        for n in range(count, count + 50):
            writer.append({"omega": np.full((side, side), n)}, time=n, scalars={"energy": n})
        writer.close(complete=True)
    assert validate(path) == []
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["fields/omega"][:, side // 2, 5], np.arange(count + 50))
