"""The benchmarks run and name what they measure; their figures are not tested."""

from benchmarks import graphs, loader
from benchmarks.tokenize import build_model, time_in_memory


def test_loader(monkeypatch) -> None:
    monkeypatch.setattr(loader, "FILE_BYTES", 64 * 4 * 16**2)
    rows = loader.benchmark_loader(sizes=(16,), batch_size=8, num_batches=2, repeats=2)
    [row] = rows
    assert row.ratio is not None
    assert row.ratio > 0
    assert "1x16x16" in row.name


def test_graphs(monkeypatch) -> None:
    monkeypatch.setattr(graphs, "NUM_TEMPLATES", 4)
    rows = graphs.benchmark_graphs(num_samples=8, num_reads=3, repeats=1)
    assert "write ragged, 8 meshes" in [row.name for row in rows]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows if row.goal)


def test_tokenizing_stands_beside_the_encoder() -> None:
    row = time_in_memory(build_model(32, base_channels=8), batch_size=1, repeats=1)
    assert row.floor is not None
    assert row.value > 0
    assert row.goal == "<= 1.1"
