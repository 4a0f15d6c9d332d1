"""Frames of every layout against the file's own array, indexed by hand; blocks of bounded size."""

import h5py
import numpy as np
import pytest

from gust_torch.convert.families import FAMILIES, get_family
from gust_torch.convert.source import describe_source, open_reader, plan_spans


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


def test_tensor(sources) -> None:
    path = sources.burgers()
    fields, _ = read_all(path, "burgers1d")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(fields["u"][..., 0], file["tensor"])
    assert fields["u"].dtype == np.float32


def test_float64_is_rounded(sources) -> None:
    path = sources.family("cfd1d")
    fields, _ = read_all(path, "cfd1d")
    with h5py.File(path) as file:
        assert file["Vx"].dtype == np.float64
        np.testing.assert_array_equal(fields["Vx"][..., 0], file["Vx"][:].astype(np.float32))


def test_darcy(sources) -> None:
    path = sources.darcy()
    fields, _ = read_all(path, "darcy2d")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(fields["nu"][:, 0], file["nu"])
        np.testing.assert_array_equal(fields["u"], file["tensor"])


def test_diffusion_reaction_is_transposed_to_x_first(sources) -> None:
    path = sources.family("diffusion_reaction2d")
    fields, _ = read_all(path, "diffusion_reaction2d")
    with h5py.File(path) as file:
        data = file["0004/data"]  # (t, y, x, component), the fourth group
        assert fields["v"][3, 1, 5, 2] == data[1, 2, 5, 1]
        np.testing.assert_array_equal(fields["u"][3, 2], data[2, :, :, 0].T)


def test_shallow_water_is_x_first(sources) -> None:
    path = sources.family("shallow_water2d")
    fields, _ = read_all(path, "shallow_water2d")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(fields["h"][5], file["0023/data"][..., 0])


def test_navier_stokes_repeats_the_force(sources) -> None:
    path = sources.navier_stokes(times=5, latest=3)
    fields, _ = read_all(path, "navier_stokes2d")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(fields["velocity"], file["velocity"][:, :4])
        np.testing.assert_array_equal(fields["particles"], file["particles"][:, :4, ..., 0])
        for frame in range(4):
            np.testing.assert_array_equal(fields["force"][:, frame], file["force"])


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
