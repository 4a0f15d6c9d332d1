"""FieldSpec: validation, round trip, lengths from coordinates."""

import dataclasses
import json
import math

import numpy as np
import pytest

from gust_torch.spec import FieldSpec
from solvers.common.hdf5.axes import axis_length


def test_round_trip_through_json() -> None:
    spec = FieldSpec(("buoyancy", "vorticity"), (64, 16), ("periodic", "wall"), (4.0, 1.0), "chebyshev", 4.0)
    assert FieldSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_from_dict_names_the_keys() -> None:
    with pytest.raises(ValueError, match="lengths"):
        FieldSpec.from_dict({"names": ["vorticity"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ()}, "name per channel"),
        ({"names": ("a", "a")}, "distinct"),
        ({"grid": (0, 4)}, "positive sizes"),
        ({"boundary": ("periodic", "open")}, "boundary"),
        ({"lengths": (1.0, float("nan"))}, "lengths"),
        ({"grid_y": "random"}, "grid_y"),
        ({"grid_y": "chebyshev"}, "wall"),
    ],
)
def test_bad_values_are_refused(change: dict, message: str) -> None:
    good = FieldSpec(("a",), (4, 4))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **change)


def test_channel_knows_the_synonym() -> None:
    spec = FieldSpec(("buoyancy", "vorticity"), (4, 4))
    assert spec.channel("omega") == spec.channel("vorticity") == 1
    with pytest.raises(ValueError, match="buoyancy, vorticity"):
        spec.channel("pressure")


def test_metadata_win_over_coordinates() -> None:
    coordinates = {"x": np.arange(8.0) / 2, "y": (np.arange(4.0) + 0.5) / 4 - 7}
    metadata = {"boundary_y": "wall", "length_x": 4.0, "length_y": 1.0, "fkx": 4, "fky": 2}
    spec = FieldSpec.from_metadata(["vorticity"], coordinates, metadata)
    assert spec == FieldSpec(("vorticity",), (8, 4), ("periodic", "wall"), (4.0, 1.0), "uniform", 4.0)


@pytest.mark.parametrize(
    ("x", "metadata", "word"),
    [
        (np.arange(8.0), {"length_x": 4.0}, "length_x 4 contradicts"),
        (np.linspace(0, 1, 33), {"length_x": 1.0}, "both ends"),
        (np.arange(8.0), {"length_x": -8.0}, "positive"),
        (np.arange(8.0), {"length_x": "long"}, "positive"),
        (np.arange(8.0) ** 2, {"length_x": 56.0}, "not equidistant"),
        (np.arange(8.0) ** 2, {}, "not equidistant"),
        (np.arange(8.0), {"boundary_x": "wall", "length_x": 5.0}, "contradicts"),
    ],
)
def test_coordinates_and_lengths_that_contradict_each_other(
    x: np.ndarray, metadata: dict[str, object], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        FieldSpec.from_metadata(["vorticity"], {"x": x, "y": np.arange(4.0)}, metadata)


@pytest.mark.parametrize("first", [0.0, 0.5, 1.0])
def test_uniform_nodes_between_walls_may_hold_the_walls(first: float) -> None:
    number = {0.0: 9, 0.5: 8, 1.0: 7}[first]
    coordinates = {"x": first + np.arange(number), "y": np.arange(4.0)}
    metadata = {"boundary_x": "wall", "length_x": 8.0}
    assert FieldSpec.from_metadata(["vorticity"], coordinates, metadata).lengths[0] == 8.0


def test_defaults_without_metadata() -> None:
    x = (np.arange(64) * 2 * math.pi / 64).astype(np.float32)
    spec = FieldSpec.from_metadata(["vorticity"], {"x": x, "y": x}, {})
    assert spec.boundary == ("periodic", "periodic")
    assert spec.forcing_wavenumber is None
    assert spec.lengths == pytest.approx((2 * math.pi, 2 * math.pi), rel=1e-6)  # float32 coordinates


def test_chebyshev_nodes_without_metadata_mean_walls() -> None:
    coordinates = {"x": np.arange(8.0) / 2, "y": (1 - np.cos(np.pi * (np.arange(16) + 0.5) / 16)) / 2}
    spec = FieldSpec.from_metadata(["buoyancy"], coordinates, {})
    assert (spec.grid_y, spec.boundary) == ("chebyshev", ("periodic", "wall"))
    assert spec.lengths == pytest.approx((4.0, 1.0))


def test_missing_coordinates_are_named() -> None:
    with pytest.raises(ValueError, match="coordinates/y"):
        FieldSpec.from_metadata(["vorticity"], {"x": np.arange(4.0)}, {})


@pytest.mark.parametrize(
    "nodes",
    [
        (1 - np.cos(np.pi * (np.arange(24) + 0.5) / 24)) / 2,  # Gauss: walls left out
        (1 - np.cos(np.pi * np.arange(24) / 23)) / 2,  # Lobatto: walls included
    ],
)
def test_chebyshev_length_is_that_of_the_domain(nodes: np.ndarray) -> None:
    assert axis_length(nodes.astype(np.float32), "wall", "chebyshev", "y") == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("nodes", [(np.arange(10) + 0.5) / 10, np.linspace(0, 1, 10)])
def test_uniform_wall_length(nodes: np.ndarray) -> None:
    assert axis_length(nodes, "wall", "uniform", "y") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("nodes", "grid", "message"),
    [
        (np.array([0.0]), "uniform", "increasing"),
        (np.array([0.0, 2.0, 1.0]), "uniform", "increasing"),
        (np.array([0.0, 1.0, 4.0]), "uniform", "equidistant"),
        (np.linspace(0, 1, 16), "chebyshev", "Chebyshev"),
    ],
)
def test_nodes_that_make_no_sense(nodes: np.ndarray, grid: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        axis_length(nodes, "wall", grid, "y")
