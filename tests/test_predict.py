"""Running a model over all data: disjoint rows, a full disk told at once."""

import errno
import multiprocessing
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.plugins.environments import mpi

from gust_torch.predict import Ranks, RowFile, allocate_rows
from gust_torch.terminal import MPI_LAUNCHED, silence_lightning


def test_rows_are_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    allocate_rows(path, (10, 3), np.dtype(np.float32))
    assert not np.load(path).any()
    file = RowFile(path)
    with Ranks(accelerator="cpu", devices="1") as ranks:
        ranks.predict(
            lambda rows: rows[:, None].float() * torch.ones(3),
            lambda rows: torch.tensor(rows),
            [range(10)[start : start + 4] for start in (8, 0, 4)],
            lambda start, rows: file.write(start, rows.numpy()),
            title="rows",
        )
        assert ranks.agree(lambda: 7) == 7
    file.close()
    np.testing.assert_array_equal(np.load(path), np.arange(10.0)[:, None] * np.ones(3))


def test_a_file_that_may_not_be_so_large(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            allocate_rows(path, (1 << 20,), np.dtype(np.float32))
        except OSError as error:
            raise SystemExit(error.errno if error.filename == str(path) else 1) from error

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(30)
    assert process.exitcode == errno.EFBIG
    assert not path.exists()


@pytest.mark.parametrize(
    "options", [{"strategy": "ddp_spawn"}, {"devices": "many"}, {"accelerator": "abacus"}]
)
def test_what_this_machine_lacks_is_told(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"give auto|change --devices"):
        Ranks(**{"accelerator": "cpu", **options})


def test_mpi_is_started_under_mpirun_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MPI_LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mpi, "_MPI4PY_AVAILABLE", True)
    with monkeypatch.context() as patch:
        patch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        silence_lightning()
        assert mpi._MPI4PY_AVAILABLE
    silence_lightning()
    assert not mpi._MPI4PY_AVAILABLE
