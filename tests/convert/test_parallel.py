"""Dask workers give what one process gives; their errors are refusals, their parts are reused."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.convert import parallel
from gust_torch.convert.families import get_family
from gust_torch.convert.pdebench import Execution, convert_family
from gust_torch.convert.plan import Options
from gust_torch.convert.source import describe_source
from solvers.common.hdf5_utils import validate


def test_workers_write_the_same_outputs(sources, out: Path) -> None:
    pytest.importorskip("distributed")
    for seed in range(3):
        sources.navier_stokes(seed=seed)
    serial = convert_family("navier_stokes2d", sources.root, out / "serial", Options(), Execution())
    workers = Execution(workers=2, verify=True)
    dask = convert_family("navier_stokes2d", sources.root, out / "dask", Options(), workers)
    for split, path in serial.outputs.items():
        with h5py.File(path) as expected, h5py.File(dask.outputs[split]) as found:
            for name in ("velocity", "particles", "force"):
                np.testing.assert_array_equal(found[f"fields/{name}"], expected[f"fields/{name}"])
    assert len(list((out / "dask").iterdir())) == 3


def test_refusal_of_a_worker(sources, out: Path) -> None:
    distributed = pytest.importorskip("distributed")
    sources.burgers(nu=0.01)
    with h5py.File(sources.burgers(nu=0.1), "r+") as file:
        file["tensor"][0, 0, 0] = np.nan
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        running = Execution(scheduler=cluster.scheduler_address)
        with pytest.raises(ValueError, match="field 'u' is nan"):
            convert_family("burgers1d", sources.root, out, Options(), running)
        assert not out.exists()
        convert_family("burgers1d", sources.root, out, Options(limit=1), running)
    assert len(list(out.iterdir())) == 3


def test_part_is_complete_or_absent(sources, tmp_path: Path, monkeypatch) -> None:
    source = describe_source(sources.burgers(), get_family("burgers1d"))
    part = tmp_path / "part.h5"
    with monkeypatch.context() as patch:
        patch.setattr(parallel.HDF5Writer, "append", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            parallel.write_part(source, part)
    assert not part.exists()
    parallel.write_part(source, part)
    with h5py.File(part) as file:
        assert file["fields/u"].shape == (50, 8, 1)
    written = part.stat().st_mtime_ns
    parallel.write_part(source, part)  # reused
    assert part.stat().st_mtime_ns == written
    assert [text for text in validate(part) if "fields" in text] == []


def test_without_dask_one_line_tells_what_to_install(sources, out: Path, monkeypatch) -> None:
    sources.burgers()
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"--workers needs Dask.*pip install 'gust_torch\[sweeps\]'"):
        convert_family("burgers1d", sources.root, out, Options(), Execution(workers=2))
    assert not out.exists()
