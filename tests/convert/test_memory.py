"""Peak memory does not grow with the input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CONVERT = """
import resource, sys
from pathlib import Path
import hdf5plugin
from gust_torch.convert.commands import convert_family
from gust_torch.convert.output import Options

def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
convert_family("cfd2d", Path(sys.argv[1]), Path(sys.argv[2]), Options(compression="lz4"))
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("num", "chunks"),
    [
        pytest.param(100, None, id="0.5 GB"),
        pytest.param(300, None, id="1.5 GB", marks=pytest.mark.slow),
        pytest.param(100, (16, 3, 64, 64), id="0.5 GB in chunks across trajectories"),
    ],
)
def test_peak_memory(sources, out: Path, num: int, chunks: tuple[int, ...] | None) -> None:
    name = "2D/CFD/2D_Train_Rand/2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_128_Train.hdf5"
    with sources.create(name) as file:
        for field in ("density", "pressure", "Vx", "Vy"):
            # Only what is written takes space on disk, or little; and lz4 shrinks the zeros of the output.
            data = file.create_dataset(
                field, (num, 21, 128, 128), "f4", chunks=chunks, compression="lzf" if chunks else None
            )
            for index in range(0, num, chunks[0]) if chunks else (num // 2,):
                data[index] = index
        file["x-coordinate"] = file["y-coordinate"] = (np.arange(128.0) + 0.5) / 128
        file["t-coordinate"] = 0.05 * np.arange(22)
    command = [sys.executable, "-c", CONVERT, str(sources.root), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 500, "MB above the interpreter with its imports"
