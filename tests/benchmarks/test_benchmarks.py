"""The benchmarks run and name what they measure; their figures are not tested."""

from benchmarks import reading
from benchmarks.common import format_table
from benchmarks.models import build_model, time_in_memory


def test_loader(monkeypatch) -> None:
    monkeypatch.setattr(reading, "FILE_BYTES", 64 * 4 * 16**2)
    [row] = reading.benchmark_loader(sizes=(16,), batch_size=8, num_batches=2, repeats=2)
    assert row.ratio is not None
    assert row.ratio > 0
    assert "1x16x16" in row.name


def test_graphs(monkeypatch) -> None:
    monkeypatch.setattr(reading, "NUM_TEMPLATES", 4)
    rows = reading.benchmark_graphs(num_samples=8, num_reads=3, repeats=1)
    assert "write ragged, 8 meshes" in [row.name for row in rows]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows if row.goal)
    assert len(format_table(rows).splitlines()) == len(rows) + 1


def test_tokenizing_stands_beside_the_encoder() -> None:
    row = time_in_memory(build_model(32, base_channels=8).eval(), batch_size=1, repeats=1)
    assert row.floor is not None
    assert row.value > 0
    assert row.goal == "<= 1.1"
