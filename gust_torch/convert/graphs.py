"""Converts mesh and particle shards (.npz, one sample a file) to Zarr stores for training, in one pass."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gust_torch.convert.graph_checks import Shard, read_shard
from gust_torch.convert.graph_output import StoreFolder
from gust_torch.convert.graph_tasks import GRAPH_TASKS, find_shards
from gust_torch.convert.plan import Options
from gust_torch.convert.splits import SPLIT_NAMES, WHOLE, Splits, make_splits
from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import Schema, differences
from gust_torch.data.graphs.stores import open_reader
from solvers.common.progress import Interrupt, Progress
from solvers.common.provenance import provenance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphExecution:
    """How shards are converted.

    Attributes:
        overwrite: Replace existing stores.
        verify: Compare the stores with the shards before they get their names.
        skip_bad: Go on without bad shards and list them at the end.
    """

    overwrite: bool = False
    verify: bool = False
    skip_bad: bool = False


@dataclass
class GraphResult:
    """Outcome: the stores, the samples in each, the reasons of skipped shards, and the exit code."""

    outputs: dict[str, Path] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    exit_code: int = 0

    def summary(self, split: str) -> str:
        """Return what a split's store holds."""
        return f"{self.samples[split]} samples"


def convert_graphs(
    name: str, root: Path, out: Path, options: Options, execution: GraphExecution, pattern: str | None = None
) -> GraphResult:
    """Convert the shards of a task to `out/NAME_train.zarr`, `NAME_val.zarr` and `NAME_test.zarr`.

    The split is drawn over all shards, good or bad, so that a bad one moves no other.

    Args:
        name: "darcy2d_mesh" or "particles_advect".
        root: Folder with the released directories.
        out: Output folder, made if missing.
        options: Shards to take and how to split them; each shard is one sample.
        execution: How to run.
        pattern: Glob below the root that replaces the search for shards.

    Raises:
        ValueError: No shards, or the first bad one with all that is wrong; nothing is left behind.
        OSError: Writing failed; nothing is left behind.
    """
    if options.compression is not None:
        raise ValueError("--compression is for grids; Zarr stores are compressed with zstd, leave it out")
    names = find_shards(name, root, pattern)[: options.limit]
    splits = make_splits(len(names), options.fractions, options.seed)
    stems = {WHOLE: name} | {split: f"{name}_{split}" for split in SPLIT_NAMES}
    targets = {split: out / f"{stems[split]}.zarr" for split in splits.names}
    folder = StoreFolder(targets, name, overwrite=execution.overwrite)
    folder.begin()
    try:
        conversion = _Conversion(name, root, splits, folder, execution)
        with Interrupt() as interrupt:
            conversion.write(names, lambda: interrupt.signal is not None)
        if interrupt.signal:
            logger.warning(
                "stopped by %s, nothing written; the same command starts again", interrupt.signal.name
            )
            return GraphResult(exit_code=interrupt.exit_code)
        if execution.verify:
            conversion.verify()
        folder.publish()
    finally:
        folder.discard()
    _say_skipped(conversion.skipped, len(names))
    samples = {split: len(written) for split, written in conversion.written.items() if written}
    return GraphResult({split: targets[split] for split in samples}, samples, conversion.skipped)


class _Conversion:
    """Stores being written, one for each split that has a sample.

    Attributes:
        written: Split -> its shards.
        skipped: Why shards were left out.
    """

    def __init__(
        self, name: str, root: Path, splits: Splits, folder: StoreFolder, execution: GraphExecution
    ) -> None:
        self._name, self._root, self._splits = name, root, splits
        self._folder, self._execution = folder, execution
        self._kind = GRAPH_TASKS[name].kind
        self._schema: Schema | None = None
        self.written: dict[str, list[str]] = {split: [] for split in splits.names}
        self.skipped: list[str] = []

    def write(self, names: Sequence[str], stopped: Callable[[], bool]) -> None:
        """Check and appends shard after shard, until `stopped` says so.

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
        """Read the stores again and compares every array with its shard.

        Raises:
            ValueError: The first difference.
        """
        for split, names in self.written.items():
            if not names:
                continue
            store = self._folder.path(split)
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
        except ValueError as error:
            if not self._execution.skip_bad:
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
        return RaggedWriter(self._folder.path(split), self._kind, attributes=attributes)


def _compare(stored: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise ValueError at the first array that differs from its shard, bit for bit."""
    for name in sorted({*stored, *expected}):
        same = name in stored and name in expected and stored[name].shape == expected[name].shape
        if same:
            same = (stored[name].dtype, stored[name].tobytes()) == (
                expected[name].dtype,
                expected[name].tobytes(),
            )
        if not same:
            raise ValueError(f"{path}: array {name!r} differs in the store that was written; convert again")


def _say_skipped(skipped: Sequence[str], total: int) -> None:
    """List the shards that were left out."""
    if skipped:
        logger.warning("skipped %d of %d shards:", len(skipped), total)
        for reason in skipped:
            logger.warning("  %s", reason)
