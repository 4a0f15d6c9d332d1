"""All that differs between two PDEBench families, as in the upstream generators (arXiv:2210.07182)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solvers.common.splits import SPLITS


@dataclass(frozen=True)
class Array:
    """A dataset `key`, of the file or of each sample's group, and the fields that it becomes.

    `axes` has a letter an axis, in their order: n sample, t time (without it, frames repeat the array), x, y,
    c component, 1 of length one. Several fields divide the component axis, one keeps it as a vector.
    """

    key: str
    axes: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """What the converter must know of one PDEBench family.

    Attributes:
        name: Name on the command line and of the output files.
        pattern: Glob below the root, as released.
        file_name: Regular expression that a released file's name begins with, in any case.
        equation: The equation solved, in the names of the fields and parameters.
        parameters: Names under /parameters; upstream may spell them in another case.
        boundary: "periodic", "wall" (anything else), "name" (the file name says periodic or trans) or
            "config" (the YAML config's velocity_extrapolation says it); and the condition in words.
        groups: Whether each sample is a group of its own, named by its seed.
        coordinates: Keys of x and y, in the file or in each group; () where the config gives the grid.
        time_key: Key of the times; "" for a steady problem, or where a frame's number is its time.
        note: What a user must know before using the frames, logged and stored.
        start_fields: Fields of the first frame that tell which trajectories start alike; () for all.
        domain: Lengths where neither coordinates nor a config give them; None for one unit a cell.
    """

    name: str
    pattern: str
    file_name: str
    arrays: tuple[Array, ...]
    equation: str
    parameters: tuple[str, ...]
    boundary: tuple[str, str] = ("periodic", "periodic")
    groups: bool = False
    coordinates: tuple[str, ...] = ("x-coordinate",)
    time_key: str = "t-coordinate"
    note: str = ""
    start_fields: tuple[str, ...] = ()
    domain: tuple[float, float] | None = None


def _scalars(axes: str, *names: str) -> tuple[Array, ...]:
    """One dataset per field, under the field's own name."""
    return tuple(Array(name, axes, (name,)) for name in names)


_PERIODIC_OR_OUTFLOW = "periodic, or zero-gradient outflow where the file name says trans"

_TABLE = (
    Family(
        name="advection1d",
        pattern="1D/Advection/Train/*.h*5",
        file_name=r"1D_Advection_Sols_",
        arrays=(Array("tensor", "ntx", ("u",)),),
        equation="u_t + beta u_x = 0",
        parameters=("beta",),
    ),
    Family(
        name="burgers1d",
        pattern="1D/Burgers/Train/*.h*5",
        file_name=r"1D_Burgers_Sols_",
        arrays=(Array("tensor", "ntx", ("u",)),),
        equation="u_t + u u_x = (nu/pi) u_xx",
        parameters=("nu",),
    ),
    Family(
        name="reaction_diffusion1d",
        pattern="1D/ReactionDiffusion/Train/*.h*5",
        file_name=r"ReacDiff_",
        arrays=(Array("tensor", "ntx", ("u",)),),
        equation="u_t - nu u_xx - rho u (1 - u) = 0",
        parameters=("nu", "rho"),
    ),
    Family(
        name="cfd1d",
        pattern="1D/CFD/Train/*.h*5",
        file_name=r"1D_CFD_",
        arrays=_scalars("ntx", "density", "pressure", "Vx"),
        equation="compressible Navier-Stokes, shear viscosity eta, bulk viscosity zeta",
        parameters=("eta", "zeta"),
        boundary=("name", _PERIODIC_OR_OUTFLOW),
    ),
    Family(
        name="cfd2d",
        pattern="2D/CFD/2D_Train_*/*.h*5",
        file_name=r"2D_CFD_",
        arrays=_scalars("ntxy", "density", "pressure", "Vx", "Vy"),
        equation="compressible Navier-Stokes, shear viscosity eta, bulk viscosity zeta, Mach number M",
        parameters=("M", "eta", "zeta"),
        boundary=("name", _PERIODIC_OR_OUTFLOW),
        coordinates=("x-coordinate", "y-coordinate"),
    ),
    Family(
        name="darcy2d",
        pattern="2D/DarcyFlow/*.h*5",
        file_name=r"2D_DarcyFlow_",
        arrays=(Array("nu", "nxy", ("nu",)), Array("tensor", "n1xy", ("u",))),
        equation="-div(nu grad u) = beta; nu is the input, u the solution",
        parameters=("beta",),
        boundary=("wall", "u = 0 on the boundary"),
        coordinates=("x-coordinate", "y-coordinate"),
        start_fields=("nu",),
        time_key="",
        note="steady problem, one frame a trajectory; the generator stops at t = 1.75, so that small beta is "
        "not fully steady",
    ),
    Family(
        name="diffusion_reaction2d",
        pattern="2D/diffusion-reaction/*.h*5",
        file_name=r"2D_diff-react_",
        arrays=(Array("data", "tyxc", ("u", "v")),),
        equation="u_t = Du lap(u) + u - u^3 - k - v; v_t = Dv lap(v) + u - v",
        parameters=("Du", "Dv", "k"),
        boundary=("wall", "no flow: zero normal derivative"),
        groups=True,
        coordinates=("grid/x", "grid/y"),
        time_key="grid/t",
        note="stored with axes (t, y, x, c) upstream, transposed to x first here",
    ),
    Family(
        name="diffusion_sorption1d",
        pattern="1D/diffusion-sorption/*.h*5",
        file_name=r"1D_diff-sorp_",
        arrays=(Array("data", "tx1", ("u",)),),
        equation="u_t = D / R(u) u_xx, R(u) = 1 + (1 - por)/por rho_s k_f n_f u^(n_f - 1)",
        parameters=("D", "por", "rho_s", "k_f", "n_f", "sol"),
        boundary=("wall", "u = sol at the left end, u = D u_x at the right end"),
        groups=True,
        coordinates=("grid/x",),
        time_key="grid/t",
    ),
    Family(
        name="navier_stokes2d",
        pattern="2D/NS_incom/*.h*5",
        file_name=r"ns_(incom|sim)_",
        arrays=(
            Array("velocity", "ntxyc", ("velocity",)),
            Array("particles", "ntxy1", ("particles",)),
            Array("force", "nxyc", ("force",)),
        ),
        equation="v_t + v.grad v = -grad p + nu lap(v) + particles force, div v = 0; particles advected by v",
        parameters=("nu",),
        boundary=("config", "as velocity_extrapolation and particle_extrapolation of the config say"),
        coordinates=(),
        time_key="t",
        note="frame 0 of each trajectory is the raw noise that the run started from, not divergence-free",
    ),
    Family(
        name="shallow_water2d",
        pattern="2D/shallow-water/*.h*5",
        file_name=r"2D_rdb_",
        arrays=(Array("data", "txy1", ("h",)),),
        equation="shallow water equations over a flat bottom, radial dam break; h is the water depth",
        parameters=("gravity", "dam_radius", "inner_height"),
        boundary=("wall", "zero normal derivative (outflow)"),
        groups=True,
        coordinates=("grid/x", "grid/y"),
        time_key="grid/t",
    ),
)
FAMILIES = {family.name: family for family in _TABLE}


def get_family(name: str) -> Family:
    """Return the family called `name`, or raise ValueError."""
    refuse_3d(name)
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}: use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def refuse_3d(name: str) -> None:
    """Raise ValueError where `name` (of a family or a file) is that of the 3-D compressible data."""
    if re.match(r"(3D_|cfd3d|3d)", name, re.IGNORECASE):
        raise ValueError(
            f"{name}: 3-D compressible flow is not supported, the common format holds 2-D frames; "
            "leave the file out, or use the 2-D data of 2D/CFD (cfd2d)"
        )


def detect_family(paths: Sequence[Path]) -> Family:
    """Return the one family whose released names, or NAME_train and such, all of `paths` have; or raise."""
    found: dict[str, Path] = {}
    for path in paths:
        refuse_3d(path.name)
        own = {family.name: rf"{family.file_name}|{family.name}_({'|'.join(SPLITS)})\b" for family in _TABLE}
        names = [name for name, pattern in own.items() if re.match(pattern, path.name, re.IGNORECASE)]
        if not names:
            raise ValueError(
                f"{path}: the name is of no PDEBench family; give --family ({', '.join(FAMILIES)})"
            )
        found[names[0]] = path
    if len(found) > 1:
        each = ", ".join(f"{path.name} is {name}" for name, path in found.items())
        raise ValueError(f"the files belong to several families ({each}): convert one family at a time")
    return FAMILIES[next(iter(found))]
