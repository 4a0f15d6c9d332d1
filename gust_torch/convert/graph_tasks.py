"""The tasks that make meshes and particles, and where their shards lie."""

import glob
import logging
from dataclasses import dataclass
from pathlib import Path

from gust_torch.convert.graph_checks import shard_keys
from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphTask:
    """A task of the command line: what it makes, and where its shards are as released."""

    kind: Kind
    pattern: str


GRAPH_TASKS = {
    "darcy2d_mesh": GraphTask(MESH, "2D/Darcy*/**/*.npz"),
    "particles_advect": GraphTask(PARTICLES, "Particles/Advection/**/*.npz"),
}


def find_shards(name: str, root: Path, pattern: str | None = None) -> list[str]:
    """Shards of a task: in the released folder, else every .npz below the root with any of its arrays.

    Returns:
        Sorted paths relative to the root; a million of them must fit into memory.

    Raises:
        ValueError: There are none.
    """
    task = GRAPH_TASKS[name]
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; give --root the folder above {task.pattern.split('/')[0]}/"
        )
    if pattern and Path(pattern).is_absolute():
        raise ValueError(f"--pattern is {pattern!r}, expected a glob below --root; leave the folder out")
    names = _files(root, pattern or task.pattern)
    if names or pattern:
        if not names:
            raise ValueError(f"{root}: no files match {pattern}; check --pattern and --root")
        return names
    candidates = _files(root, "**/*.npz")
    own = set(task.kind.axes) - {"edges"}
    # Unreadable files stay in, to be refused by name.
    names = [name for name in candidates if (keys := shard_keys(root / name)) is None or keys & own]
    if not names:
        needed = ", ".join(task.kind.axes)
        raise ValueError(f"{root}: no .npz shards with {needed}; check --root, or give --pattern")
    if len(names) < len(candidates):
        logger.info("%d other .npz files left out", len(candidates) - len(names))
    return names


def _files(root: Path, pattern: str) -> list[str]:
    """Files below the root that match a glob, sorted, relative to it."""
    names = glob.glob(pattern, root_dir=root, recursive=True)
    return sorted({name for name in names if (root / name).is_file()})
