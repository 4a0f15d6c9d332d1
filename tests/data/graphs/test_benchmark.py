"""The benchmark runs and names what it measures; its figures are not tested."""

from gust_torch.data.graphs import benchmark


def test_rows(monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "NUM_TEMPLATES", 4)
    rows = benchmark.benchmark_graphs(num_samples=8, num_groups=3, num_reads=3, repeats=1)
    assert "write ragged, 8 meshes" in [row.name for row in rows]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows if row.goal)
