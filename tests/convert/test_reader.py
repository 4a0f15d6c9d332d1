"""Frames of every layout against the file's own array, indexed by hand; blocks of bounded size."""

import h5py
import numpy as np
import pytest

from gust_torch.convert.families import FAMILIES, get_family
from gust_torch.convert.source import describe_source, open_reader, plan_spans
from tests.convert.conftest import GROUPS


def read_all(path, family: str, block_bytes: int = 1 << 20) -> tuple[dict[str, np.ndarray], list[dict]]:
    """All fields of a source as (n, t, x, y[, c]), and the blocks that they came in."""
    source = describe_source(path, get_family(family))
    with open_reader(source) as read:
        blocks = [read(*span) for span in plan_spans(source, block_bytes)]
    shape = source.times.shape
    fields = {
        name: np.concatenate([block[name].reshape(-1, *frame) for block in blocks]).reshape(*shape, *frame)
        for name, frame in source.shapes.items()
    }
    return fields, blocks


def stacked(file: h5py.File, component: int) -> np.ndarray:
    """One component of `data` in all groups."""
    return np.stack([file[group]["data"][..., component] for group in GROUPS])


READ = [
    ("burgers1d", "u", lambda file: file["tensor"][:][..., None]),
    ("cfd1d", "Vx", lambda file: file["Vx"][:][..., None].astype("f4")),  # float64 is rounded
    ("darcy2d", "nu", lambda file: file["nu"][:][:, None]),
    ("darcy2d", "u", lambda file: file["tensor"]),
    ("diffusion_reaction2d", "v", lambda file: stacked(file, 1).swapaxes(2, 3)),  # x first
    ("shallow_water2d", "h", lambda file: stacked(file, 0)),
    ("navier_stokes2d", "velocity", lambda file: file["velocity"][:]),
    ("navier_stokes2d", "particles", lambda file: file["particles"][..., 0]),
    ("navier_stokes2d", "force", lambda file: np.repeat(file["force"][:][:, None], 5, axis=1)),
]


@pytest.mark.parametrize(("family", "field", "expected"), READ)
def test_values(sources, family: str, field: str, expected) -> None:
    path = sources.family(family)
    fields, _ = read_all(path, family)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(fields[field], expected(file))
    assert fields[field].dtype == np.float32


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block_bytes", [1, 200, 500])
def test_small_blocks_give_the_same_frames(sources, family: str, block_bytes: int) -> None:
    path = sources.family(family)
    whole, one = read_all(path, family)
    pieces, many = read_all(path, family, block_bytes)
    assert len(one) == 1 < len(many)
    for name, values in whole.items():
        np.testing.assert_array_equal(pieces[name], values)


def test_spans_keep_to_chunks(sources) -> None:
    with sources.create("1D_Burgers_Sols_Nu0.01.hdf5") as file:
        file.create_dataset("tensor", data=np.zeros((100, 8, 64), "f4"), chunks=(7, 8, 64))
        file["x-coordinate"], file["t-coordinate"] = np.arange(64.0), np.arange(8.0)
    source = describe_source(sources.root / "1D_Burgers_Sols_Nu0.01.hdf5", get_family("burgers1d"))
    trajectory = 8 * 64 * 4
    spans = plan_spans(source, 20 * trajectory)
    assert [n.start for n, _ in spans] == list(range(0, 100, 14))  # two chunks, not twenty trajectories
    assert spans[-1][0].stop == 100
    assert plan_spans(source, trajectory)[0][0].stop == 7  # a chunk is read once, though it exceeds the block


def test_a_long_trajectory_is_cut_in_time(sources) -> None:
    source = describe_source(sources.navier_stokes(times=5), get_family("navier_stokes2d"))
    spans = plan_spans(source, 2 * source.frame_bytes)
    assert [(n.start, t.start, t.stop) for n, t in spans[:4]] == [
        (0, 0, 2),
        (0, 2, 4),
        (0, 4, 5),
        (1, 0, 2),
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_with_their_position(sources, bad: float) -> None:
    path = sources.burgers()
    with h5py.File(path, "r+") as file:
        file["tensor"][7, 3, 2] = bad
    with pytest.raises(ValueError, match=r"field 'u'.*sample 7, time 3, grid point \(2, 0\) \(1 such"):
        read_all(path, "burgers1d", 2 * 5 * 8 * 4)


def test_values_beyond_float32_are_refused(sources) -> None:
    path = sources.family("cfd1d")
    with h5py.File(path, "r+") as file:
        file["pressure"][0, 1, 2] = 1e300
    with pytest.raises(ValueError, match="field 'pressure' is inf"):
        read_all(path, "cfd1d")


def test_large_finite_values_are_kept(sources) -> None:
    path = sources.burgers()
    with h5py.File(path, "r+") as file:
        file["tensor"][...] = 3e38  # their squares, and their sum, overflow float32
    fields, _ = read_all(path, "burgers1d")
    assert (fields["u"] == np.float32(3e38)).all()


def test_damaged_chunk(sources) -> None:
    name = "1D_Burgers_Sols_Nu0.01.hdf5"
    with sources.create(name) as file:
        data = np.random.default_rng(0).integers(0, 9, (4, 8, 64)).astype("f4")
        chunk = file.create_dataset(
            "tensor", data=data, chunks=(4, 8, 64), compression="gzip"
        ).id.get_chunk_info(0)
        file["x-coordinate"], file["t-coordinate"] = np.arange(64.0), np.arange(8.0)
    with open(sources.root / name, "r+b") as raw:
        raw.seek(chunk.byte_offset + 20)
        raw.write(bytes(100))
    with pytest.raises(ValueError, match=r"/tensor.*damaged"):
        read_all(sources.root / name, "burgers1d")
