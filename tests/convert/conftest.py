"""Tiny sources in every upstream layout, written the way the generators write them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

CONFIGS = {
    "diffusion_reaction2d": "sim:\n  Du: 0.001\n  Dv: 0.005\n  k: 5e-3\n  'n': 1\n  seed: {seed}\n",
    "diffusion_sorption1d": "sim: {{D: 5.0e-4, por: 0.29, rho_s: 2880, k_f: 3.5e-4, n_f: 0.874, sol: 1.0}}\n",
    "shallow_water2d": "sim: {{gravity: 1.0, dam_radius: 0.{seed}5, inner_height: 2.0}}\n",
    "navier_stokes2d": "grid_size: [6, 4]\nvelocity_extrapolation: ZERO\nNU: 0.01\n",
}
GROUPS = ("0000", "0001", "0002", "0004", "0007", "0023")


def values(*shape: int, dtype: str = "f4", seed: int = 0) -> np.ndarray:
    """Values without symmetry, so that a swapped axis or component shows."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def centers(num: int, left: float = 0.0, right: float = 1.0) -> np.ndarray:
    """Cell centers of a uniform grid."""
    return (left + (np.arange(num) + 0.5) * (right - left) / num).astype("f4")


class Sources:
    """Writes sources below a raw root.

    Attributes:
        root: The raw root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str) -> h5py.File:
        """Return a new file below the root, with its folders."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return h5py.File(path, "w")

    def tensor(
        self, name: str, num: int = 10, times: int = 5, points: int = 8, seed: int = 0, **attrs: float
    ) -> Path:
        """1-D family with a `tensor` and one t-coordinate more than there are times."""
        with self.create(name) as file:
            file["tensor"] = values(num, times, points, seed=seed)
            file["x-coordinate"] = centers(points)
            file["t-coordinate"] = (0.1 * np.arange(times + 1)).astype("f4")
            file.attrs.update(attrs)
        return self.root / name

    def burgers(self, nu: float = 0.01, num: int = 10, points: int = 8, seed: int | None = None) -> Path:
        """1-D Burgers; the coefficient is attribute `Nu`, and the seed unless one is given."""
        seed = int(1000 * nu) if seed is None else seed
        name = f"1D/Burgers/Train/1D_Burgers_Sols_Nu{nu}.hdf5"
        return self.tensor(name, num=num, points=points, seed=seed, Nu=nu)

    def cfd(self, name: str, fields: str, shape: tuple[int, ...], dtype: str = "f4") -> Path:
        """Compressible flow: one dataset per field, parameters in the name only."""
        with self.create(name) as file:
            for index, field in enumerate(fields.split()):
                file[field] = 10.0**index * values(*shape, dtype=dtype, seed=index)
            for axis, size in zip("xyz", shape[2:], strict=False):
                file[f"{axis}-coordinate"] = centers(size, -1, 1)
            file["t-coordinate"] = (0.05 * np.arange(shape[1] + 1)).astype("f4")
        return self.root / name

    def darcy(self) -> Path:
        """Darcy flow: input `nu`, solution `tensor` with a singleton axis, no times."""
        name = "2D/DarcyFlow/2D_DarcyFlow_beta1.0_Train.hdf5"
        with self.create(name) as file:
            file["nu"] = np.where(values(10, 6, 4) > 0, 1.0, 0.1).astype("f4")
            file["tensor"] = values(10, 1, 6, 4, seed=1)
            file["x-coordinate"], file["y-coordinate"] = centers(6), centers(4)
            file.attrs["beta"] = 1.0
        return self.root / name

    def groups(self, name: str, family: str, shape: tuple[int, ...], axes: str) -> Path:
        """Return a group per sample, not contiguous, with grid and config in each; `axes` names those of
        `data`."""
        with self.create(name) as file:
            for index, key in enumerate(GROUPS):
                group = file.create_group(key)
                group.create_dataset("data", data=values(*shape, seed=index), compression="lzf")
                for axis, size in zip(axes, shape, strict=True):
                    if axis in "xy":
                        group[f"grid/{axis}"] = centers(size, -2.5, 2.5)
                group["grid/t"] = np.linspace(0, 1, shape[0], dtype="f4")
                group.attrs["config"] = CONFIGS[family].format(seed=int(key))
        return self.root / name

    def navier_stokes(self, seed: int = 0, num: int = 3, times: int = 5, latest: int | None = None) -> Path:
        """Incompressible flow: vector and scalar fields, constant force, zeros after `latestIndex`."""
        name = f"2D/NS_incom/ns_incom_inhom_2d_512-{seed}.h5"
        latest = times - 1 if latest is None else latest
        with self.create(name) as file:
            for key, components in (("velocity", 2), ("particles", 1)):
                data = values(num, times, 6, 4, components, seed=seed + components)
                data[:, latest + 1 :] = 0
                chunks = (1, 1, 6, 4, components)
                file.create_dataset(key, data=data, compression="lzf", shuffle=True, chunks=chunks)
            file["force"] = values(num, 6, 4, 2, seed=seed + 7)
            steps = np.where(np.arange(times) <= latest, 0.5 * np.arange(times), 0)
            file["t"] = np.broadcast_to(steps, (num, times)).astype("f4")
            file.attrs["config"] = CONFIGS["navier_stokes2d"]
            file.attrs["latestIndex"] = latest
        return self.root / name

    def family(self, family: str) -> Path:
        """One source of a family: ten trajectories, three of Navier-Stokes, or six groups."""
        cfd1d, cfd2d = "density pressure Vx", "density pressure Vx Vy"
        if family == "advection1d":
            return self.tensor("1D/Advection/Train/1D_Advection_Sols_beta0.4.hdf5", beta=0.4)
        if family == "reaction_diffusion1d":
            return self.tensor("1D/ReactionDiffusion/Train/ReacDiff_Nu0.5_Rho2.0.hdf5", Nu=0.5, rho=2.0)
        if family == "cfd1d":
            name = "1D/CFD/Train/1D_CFD_Rand_Eta1.e-8_Zeta0.01_periodic_Train.hdf5"
            return self.cfd(name, cfd1d, (10, 5, 8), "f8")
        if family == "cfd2d":
            name = "2D/CFD/2D_Train_Rand/2D_CFD_Rand_Eta0.01_M0.1_Zeta0.1_periodic_128_Train.hdf5"
            return self.cfd(name, cfd2d, (10, 3, 6, 4))
        if family == "diffusion_reaction2d":
            name = "2D/diffusion-reaction/2D_diff-react_NA_NA.h5"
            return self.groups(name, family, (3, 4, 6, 2), "tyxc")
        if family == "diffusion_sorption1d":
            return self.groups("1D/diffusion-sorption/1D_diff-sorp_NA_NA.h5", family, (3, 8, 1), "txc")
        if family == "shallow_water2d":
            return self.groups("2D/shallow-water/2D_rdb_NA_NA.h5", family, (3, 6, 4, 1), "txyc")
        return {"burgers1d": self.burgers, "darcy2d": self.darcy, "navier_stokes2d": self.navier_stokes}[
            family
        ]()


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Writer of sources below a raw root."""
    return Sources(tmp_path / "raw")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Output folder, which does not exist yet."""
    return tmp_path / "out"
