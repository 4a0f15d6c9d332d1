"""Converts mesh and particle shards (.npz, one sample a file) to Zarr stores for training, in one pass."""

import glob
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gust_torch.convert.output import Result, Workspace
from gust_torch.convert.plan import Options
from gust_torch.convert.shards import Shard, read_shard, shard_keys
from gust_torch.convert.splits import WHOLE, Splits, make_splits
from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind, Schema, differences
from gust_torch.data.graphs.stores import open_reader
from solvers.common.progress import Interrupt, Progress
from solvers.common.provenance import provenance
from solvers.common.splits import GRAPHS, SPLITS, split_path

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


def convert_graphs(
    name: str, root: Path, out: Path, options: Options, pattern: str | None = None, skip_bad: bool = False
) -> Result:
    """Convert the shards of a task to `out/NAME_train.zarr`, `NAME_val.zarr` and `NAME_test.zarr`.

    The split is drawn over all shards, good or bad, so that a bad one moves no other.

    Args:
        name: "darcy2d_mesh" or "particles_advect".
        root: Folder with the released directories.
        out: Output folder, made if missing.
        options: Shards to take and how to split them; each shard is one sample.
        pattern: Glob below the root that replaces the search for shards.
        skip_bad: Go on without bad shards and list them at the end.

    Raises:
        ValueError: No shards, or the first bad one with all that is wrong; nothing is left behind.
        OSError: Writing failed; nothing is left behind.
    """
    if options.samples is not None:
        raise ValueError(f"--samples is for grids, a shard is one sample; give --limit for {name}")
    if options.compression is not None:
        raise ValueError("--compression is for grids; Zarr stores are compressed with zstd, leave it out")
    names = find_shards(name, root, pattern)[: options.limit]
    splits = make_splits(names, options.splits, options.seed)
    targets = {split: split_path(out, name, split, GRAPHS) for split in SPLITS}
    if options.splits is None:
        targets = {WHOLE: out / f"{name}{GRAPHS}"}
    if foreign := [path for path in targets.values() if path.exists() and not (path / "zarr.json").is_file()]:
        raise ValueError(f"{foreign[0]} is not a Zarr store and stays; choose another --out")
    with Workspace(targets, name, {"task": name}, overwrite=options.overwrite, resumes=False) as workspace:
        conversion = _Conversion(name, root, splits, workspace, skip_bad)
        with Interrupt() as interrupt:
            conversion.write(names, lambda: interrupt.signal is not None)
        if interrupt.signal:
            logger.warning(
                "stopped by %s, nothing written; the same command starts again", interrupt.signal.name
            )
            return Result(exit_code=interrupt.exit_code)
        if options.verify:
            conversion.verify()
        samples = {split: len(written) for split, written in conversion.written.items() if written}
        workspace.publish(list(samples))
    _say_skipped(conversion.skipped, len(names))
    return Result(
        {split: targets[split] for split in samples}, {split: {"samples": n} for split, n in samples.items()}
    )


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
    """Files below the root that match a glob, sorted, relative to it; no hidden ones."""
    names = glob.glob(pattern, root_dir=root, recursive=True)
    return sorted({name for name in names if (root / name).is_file() and not Path(name).name.startswith(".")})


class _Conversion:
    """Stores being written, one for each split that has a sample.

    Attributes:
        written: Split -> its shards.
        skipped: Why shards were left out.
    """

    def __init__(self, name: str, root: Path, splits: Splits, workspace: Workspace, skip_bad: bool) -> None:
        self._name, self._root, self._splits = name, root, splits
        self._workspace, self._skip_bad = workspace, skip_bad
        self._kind = GRAPH_TASKS[name].kind
        self._schema: Schema | None = None
        self._seen: dict[bytes, Path] = {}
        self.written: dict[str, list[str]] = {split: [] for split in splits.names}
        self.skipped: list[str] = []

    def write(self, names: Sequence[str], stopped: Callable[[], bool]) -> None:
        """Check and append shard after shard, until `stopped` says so.

        Raises:
            ValueError: A bad shard, unless they are skipped; or none is left.
        """
        writers: dict[str, RaggedWriter] = {}
        with Progress(len(names), unit="shard", description=self._name) as progress:
            for name, index in zip(names, self._splits.assignment.tolist(), strict=True):
                if stopped():
                    return
                split = self._splits.names[index]
                if (shard := self._read(self._root / name)) is not None:
                    if split not in writers:
                        writers[split] = self._writer(split)
                    writers[split].append(shard.arrays, source=Path(name).as_posix(), schema=shard.schema)
                    self.written[split].append(name)
                progress.update(1)
        if not writers:
            _say_skipped(self.skipped, len(names))
            raise ValueError(f"none of {len(names)} shards can be used; check --root and --pattern")
        for writer in writers.values():
            writer.close()
        for split, fraction in zip(self._splits.names, self._splits.fractions, strict=True):
            if fraction > 0 and not self.written[split]:
                logger.warning("no sample for the split %r, which gets no store: take more shards", split)

    def verify(self) -> None:
        """Read the stores again and compare every array with its shard.

        Raises:
            ValueError: The first difference.
        """
        for split, names in self.written.items():
            if not names:
                continue
            store = self._workspace.path(split)
            reader = open_reader(
                store, self._kind, self._kind.group, cache_bytes=8 << 20, storage_options=None
            )
            with Progress(len(names), unit="shard", description=f"verify {split}") as progress:
                for index, name in enumerate(names):
                    path = self._root / name
                    _compare(reader.read(index), read_shard(path, self._kind).arrays, path)
                    progress.update(1)

    def _read(self, path: Path) -> Shard | None:
        """Return a sound shard that fits those before it; None for a skipped one."""
        try:
            shard = read_shard(path, self._kind)
            if self._schema is None:
                self._schema = shard.schema
            elif phrases := differences(self._schema, shard.schema):
                raise ValueError(
                    f"{path}: {'; '.join(phrases)}; convert such shards by themselves (--pattern)"
                )
            if (first := self._seen.setdefault(shard.digest, path)) is not path:
                raise ValueError(f"{path}: holds the same arrays as {first}; remove one, or give --skip-bad")
        except ValueError as error:
            if not self._skip_bad:
                raise
            self.skipped.append(str(error))
            return None
        return shard

    def _writer(self, split: str) -> RaggedWriter:
        attributes = {
            "task": self._name,
            "split": split,
            "seed": self._splits.seed,
            "fractions": list(self._splits.fractions),
            **provenance(),
        }
        return RaggedWriter(self._workspace.path(split), self._kind, attributes=attributes)


def _compare(stored: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise ValueError at the first array that differs from its shard, bit for bit."""
    for name in sorted({*stored, *expected}):
        one, other = stored.get(name), expected.get(name)
        if (
            one is None
            or other is None
            or (one.dtype, one.shape, one.tobytes()) != (other.dtype, other.shape, other.tobytes())
        ):
            raise ValueError(f"{path}: array {name!r} differs in the store that was written; convert again")


def _say_skipped(skipped: Sequence[str], total: int) -> None:
    """List the shards that were left out."""
    if skipped:
        logger.warning("skipped %d of %d shards:", len(skipped), total)
        for reason in skipped:
            logger.warning("  %s", reason)
