"""The tasks that make meshes and particles, and where their shards lie."""

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


def find_shards(name: str, root: Path, pattern: str | None = None) -> list[Path]:
    """Shards of a task: in the released folder, else every .npz below the root with any of its arrays.

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
    paths = sorted(path for path in root.glob(pattern or task.pattern) if path.is_file())
    if paths or pattern:
        if not paths:
            raise ValueError(f"{root}: no files match {pattern}; check --pattern and --root")
        return paths
    candidates = sorted(path for path in root.glob("**/*.npz") if path.is_file())
    own = set(task.kind.axes) - {"edges"}
    keys = {path: shard_keys(path) for path in candidates}
    # Unreadable files stay in, to be refused by name.
    paths = [path for path, names in keys.items() if names is None or names & own]
    if not paths:
        needed = ", ".join(task.kind.axes)
        raise ValueError(f"{root}: no .npz shards with {needed}; check --root, or give --pattern")
    if len(paths) < len(candidates):
        logger.info("%d other .npz files left out", len(candidates) - len(paths))
    return paths
