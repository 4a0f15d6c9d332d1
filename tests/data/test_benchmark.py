"""The loader benchmark runs and names what it measures; its figures are not tested."""

import numpy as np

from gust_torch.data import benchmark


def test_rows(monkeypatch, write_file) -> None:
    monkeypatch.setattr(benchmark, "FILE_BYTES", 64 * 4 * 16**2)
    rows = benchmark.benchmark_loader(sizes=(16,), batch_size=8, num_batches=2, repeats=2)
    rows += benchmark.benchmark_loader(
        write_file("a.h5", {"v": np.zeros((20, 6, 4), np.float32)}), batch_size=8, num_batches=2, repeats=2
    )
    assert [row.ratio is not None and row.ratio > 0 for row in rows] == [True, True]
    assert "1x16x16" in rows[0].name
    assert "1x6x4" in rows[1].name
