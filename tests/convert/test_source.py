"""Headers of every layout: names, shapes, axes, times, parameters, boundaries; and what is refused."""

import logging

import h5py
import numpy as np
import pytest

from gust_torch.convert.families import FAMILIES, detect_family, get_family
from gust_torch.convert.source import describe_source

EXPECTED = {
    # family: (fields and frame shapes, parameters of the first trajectory, boundary, lengths)
    "advection1d": ({"u": (8, 1)}, {"beta": 0.4}, "periodic", (1, 1)),
    "burgers1d": ({"u": (8, 1)}, {"nu": 0.01}, "periodic", (1, 1)),
    "reaction_diffusion1d": ({"u": (8, 1)}, {"nu": 0.5, "rho": 2.0}, "periodic", (1, 1)),
    "cfd1d": (
        {"density": (8, 1), "pressure": (8, 1), "Vx": (8, 1)},
        {"eta": 1e-8, "zeta": 0.01},
        "periodic",
        (2, 1),
    ),
    "cfd2d": (
        {"density": (6, 4), "pressure": (6, 4), "Vx": (6, 4), "Vy": (6, 4)},
        {"M": 0.1, "eta": 0.01, "zeta": 0.1},
        "periodic",
        (2, 2),
    ),
    "darcy2d": ({"nu": (6, 4), "u": (6, 4)}, {"beta": 1.0}, "wall", (1, 1)),
    "diffusion_reaction2d": ({"u": (6, 4), "v": (6, 4)}, {"Du": 1e-3, "Dv": 5e-3, "k": 5e-3}, "wall", (5, 5)),
    "diffusion_sorption1d": (
        {"u": (8, 1)},
        {"D": 5e-4, "por": 0.29, "rho_s": 2880, "k_f": 3.5e-4, "n_f": 0.874, "sol": 1},
        "wall",
        (5, 1),
    ),
    "navier_stokes2d": (
        {"velocity": (6, 4, 2), "particles": (6, 4), "force": (6, 4, 2)},
        {"nu": 0.01},
        "wall",
        (6, 4),
    ),
    "shallow_water2d": ({"h": (6, 4)}, {"gravity": 1, "dam_radius": 0.05, "inner_height": 2}, "wall", (5, 5)),
}


def test_every_family_is_tested() -> None:
    assert set(EXPECTED) == set(FAMILIES)


@pytest.mark.parametrize("family", EXPECTED)
def test_description(sources, family: str) -> None:
    source = describe_source(sources.family(family), get_family(family))
    shapes, parameters, boundary, lengths = EXPECTED[family]
    assert dict(source.shapes) == shapes
    assert {name: column[0] for name, column in source.parameters.items()} == pytest.approx(parameters)
    assert source.grid.boundary[0] == boundary
    assert source.grid.boundary[1] == (boundary if source.grid.y.size > 1 else "periodic")
    assert source.grid.lengths == lengths
    assert len(source.times) == len(source.samples)
    assert {len(column) for column in source.parameters.values()} == {len(source.samples)}


def test_parameters_differ_by_group(sources) -> None:
    source = describe_source(sources.family("shallow_water2d"), get_family("shallow_water2d"))
    assert source.samples == ("0000", "0001", "0002", "0004", "0007", "0023")
    np.testing.assert_allclose(source.parameters["dam_radius"], [0.05, 0.15, 0.25, 0.45, 0.75, 0.235])


def test_superfluous_time_is_dropped(sources) -> None:
    source = describe_source(sources.burgers(), get_family("burgers1d"), max_samples=3)
    assert len(source.samples) == 3
    np.testing.assert_array_equal(source.times[2], (0.1 * np.arange(5)).astype("f4"))


def test_attribute_wins_over_name_and_says_so(sources, caplog: pytest.LogCaptureFixture) -> None:
    path = sources.burgers(nu=0.01)
    with h5py.File(path, "r+") as file:
        del file.attrs["Nu"]
        file.attrs["nU"] = 0.02
    source = describe_source(path, get_family("burgers1d"))
    assert source.parameters["nu"][0] == 0.02
    assert "differs" in caplog.text


def test_unfinished_run_is_cut_at_latest_index(sources, caplog: pytest.LogCaptureFixture) -> None:
    path = sources.navier_stokes(times=5, latest=2)
    with caplog.at_level(logging.WARNING):
        source = describe_source(path, get_family("navier_stokes2d"))
    assert source.times.shape[1] == 3
    assert "used frames 0 to 2" in caplog.text


def test_boundary_from_name_and_config(sources) -> None:
    name = "1D/CFD/Train/1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5"
    path = sources.cfd(name, "density pressure Vx", (2, 5, 8))
    assert describe_source(path, get_family("cfd1d")).grid.boundary == ("wall", "periodic")
    path = sources.navier_stokes()
    with h5py.File(path, "r+") as file:
        file.attrs["config"] = "velocity_extrapolation: PERIODIC\nNU: 0.1\ndomain_size: [3, 2]\n"
    grid = describe_source(path, get_family("navier_stokes2d")).grid
    assert grid.boundary == ("periodic", "periodic")
    assert grid.lengths == (3, 2)
    np.testing.assert_allclose(grid.x, 0.25 + 0.5 * np.arange(6))


def test_arrays_left_out_are_named(sources, caplog: pytest.LogCaptureFixture) -> None:
    path = sources.burgers()
    with h5py.File(path, "r+") as file:
        file["forcing"] = np.zeros((10, 8), "f4")
    describe_source(path, get_family("burgers1d"))
    assert "forcing" in caplog.text


def _replace(key: str, data: object) -> object:
    def change(file: h5py.File) -> None:
        del file[key]
        if data is not None:
            file[key] = data

    return change


def _set_attribute(name: str, value: object) -> object:
    return lambda file: file.attrs.__setitem__(name, value)


BROKEN = {
    "missing": ("burgers1d", _replace("tensor", None), "/tensor is missing"),
    "rank": (
        "burgers1d",
        _replace("tensor", np.zeros((5, 8), "f4")),
        r"expected \(samples, times, points along x\)",
    ),
    "no samples": ("burgers1d", _replace("tensor", np.zeros((0, 5, 8), "f4")), "0 samples"),
    "short x": ("burgers1d", _replace("x-coordinate", np.arange(7.0)), "x-coordinate.*8 points"),
    "falling x": ("burgers1d", _replace("x-coordinate", -np.arange(8.0)), "not uniform and increasing"),
    "short t": ("burgers1d", _replace("t-coordinate", np.arange(4.0)), "5 or 6 times"),
    "constant t": ("burgers1d", _replace("t-coordinate", np.zeros(5)), "not finite and increasing"),
    "parameter": ("burgers1d", _set_attribute("Nu", np.nan), "finite number"),
    "counts": ("darcy2d", _replace("nu", np.zeros((9, 6, 4), "f4")), "tensor.*10 samples, expected 9"),
    "group shape": (
        "shallow_water2d",
        _replace("0004/data", np.zeros((2, 6, 4, 1), "f4")),
        "0004/data.*2 times",
    ),
    "group data": ("shallow_water2d", _replace("0004/data", None), "0004/data.*is missing"),
    "group grid": (
        "shallow_water2d",
        _replace("0004/grid/x", np.arange(6.0)),
        "differs from that of the first",
    ),
    "components": (
        "diffusion_reaction2d",
        _replace("0000/data", np.zeros((3, 4, 6, 3), "f4")),
        "3 components",
    ),
    "no frames": ("navier_stokes2d", _set_attribute("latestIndex", -1), "latestIndex"),
    "config": ("navier_stokes2d", _set_attribute("config", "a: [b"), "no YAML"),
    "boundary": ("navier_stokes2d", _set_attribute("config", "NU: 0.01"), "velocity_extrapolation"),
    "grid size": (
        "navier_stokes2d",
        _set_attribute("config", "{NU: 0.01, velocity_extrapolation: ZERO, grid_size: [8, 8]}"),
        "grid_size",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refused(sources, case: str) -> None:
    family, change, message = BROKEN[case]
    path = sources.family(family)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        describe_source(path, get_family(family))
    assert str(path) in str(caught.value)


def test_parameter_nowhere(sources) -> None:
    path = sources.burgers().rename(sources.root / "renamed.hdf5")
    with h5py.File(path, "r+") as file:
        del file.attrs["Nu"]
    with pytest.raises(ValueError, match="'nu' is neither"):
        describe_source(path, get_family("burgers1d"))


def test_boundary_unknown_from_name(sources) -> None:
    path = sources.cfd("Sod1.hdf5", "density pressure Vx", (2, 5, 8))
    with pytest.raises(ValueError, match="_periodic_"):
        describe_source(path, get_family("cfd1d"))


def test_detect_family(sources) -> None:
    for name, family in FAMILIES.items():
        assert detect_family([sources.family(name)]) is family
    with pytest.raises(ValueError, match="several families"):
        detect_family([sources.family("burgers1d"), sources.family("advection1d")])
    with pytest.raises(ValueError, match="no PDEBench family; give --family"):
        detect_family([sources.root / "field.h5"])


@pytest.mark.parametrize("name", ["3D_CFD_Rand_M1.0_Eta1e-08_Zeta1e-08_periodic_Train.hdf5", "3d.h5"])
def test_3d_is_refused_by_name(sources, name: str) -> None:
    with pytest.raises(ValueError, match="3-D compressible flow is not supported"):
        detect_family([sources.root / name])
    with pytest.raises(ValueError, match="3-D compressible flow is not supported"):
        get_family("cfd3d")
