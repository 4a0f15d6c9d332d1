"""Source files converted in parallel by Dask, merged in order by the process that writes the outputs.

Each worker reads, checks and transposes one source into a part: a file of the common format with all its
trajectories. Merging a part is a plain copy. This pays where decompression or casting is the bottleneck (NS,
float64, lzf); sources that are plain float32 are bound by the disk and convert as fast without.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from gust_torch.convert.plan import Plan
from gust_torch.convert.reader import Block, open_reader, plan_spans
from gust_torch.convert.source import Source
from solvers.common.hdf5_utils import HDF5Writer, open_file

_POLL_SECONDS = 0.05


class Parts:
    """Blocks of each source, read from the source itself."""

    def __init__(self, plan: Plan) -> None:
        """Take the plan whose sources are read."""
        self._plan = plan

    def blocks(self, index: int, stopped: Callable[[], bool]) -> Iterator[Block]:
        """All frames of source `index`, trajectory by trajectory, until `stopped` says so."""
        with open_reader(self._plan.sources[index]) as reader:
            yield from takewhile(lambda _: not stopped(), reader.blocks())

    def drop(self, index: int) -> None:
        """Source `index` is merged; nothing to remove."""


class DaskParts(Parts):
    """Blocks of each source, read from the part that a Dask worker made of it."""

    def __init__(self, plan: Plan, folder: Path, start: int, client: Any) -> None:
        """Start the conversion of every source from `start` on.

        Args:
            plan: The conversion.
            folder: Where parts are put; workers on other machines must see it.
            start: First source that is not merged yet.
            client: A `distributed.Client`.
        """
        super().__init__(plan)
        self._paths = [folder / f"part_{index:06d}.h5" for index in range(len(plan.sources))]
        self._futures = {
            index: client.submit(write_part, plan.sources[index], self._paths[index], pure=False)
            for index in range(start, len(plan.sources))
        }

    def blocks(self, index: int, stopped: Callable[[], bool]) -> Iterator[Block]:
        """All frames of source `index`, once its part is there, until `stopped` says so."""
        while not self._futures[index].done():
            if stopped():
                return
            time.sleep(_POLL_SECONDS)
        self._futures[index].result()
        source = self._plan.sources[index]
        with open_file(self._paths[index]) as file:
            for span in takewhile(lambda _: not stopped(), plan_spans(source)):
                first = span.first * source.num_frames + span.start
                fields = {
                    name: dataset[first : first + span.num_frames].reshape(
                        span.num_trajectories, span.stop - span.start, *dataset.shape[1:]
                    )
                    for name, dataset in file["fields"].items()
                }
                yield Block(span, fields, source.times[span.first : span.last, span.start : span.stop])

    def drop(self, index: int) -> None:
        """Remove the part of a source that is merged."""
        self._paths[index].unlink(missing_ok=True)


def write_part(source: Source, path: Path) -> None:
    """Convert one source to a file of the common format; a part that is there already is complete.

    Raises:
        ValueError: Data that cannot be converted.
        OSError: The part cannot be written.
    """
    if path.exists():
        return
    unfinished = path.with_suffix(".unfinished")
    with (
        open_reader(source) as reader,
        HDF5Writer(
            unfinished,
            fields=source.shapes,
            coordinates={"x": source.grid.x, "y": source.grid.y},
            metadata={"solver": "pdebench"},
            overwrite=True,
        ) as writer,
    ):
        for block in reader.blocks():
            frames = {name: values.reshape(-1, *values.shape[2:]) for name, values in block.fields.items()}
            writer.append(frames, time=block.times.reshape(-1))
        writer.close(complete=True)
    os.replace(unfinished, path)


@contextmanager
def open_parts(plan: Plan, folder: Path, start: int, workers: int, scheduler: str | None) -> Iterator[Parts]:
    """Where the blocks come from: the sources, or parts that `workers` processes or a running scheduler make.

    Raises:
        ValueError: Dask is asked for and not installed.
        OSError: Workers die, or none can be reached.
    """
    if not workers and not scheduler:
        yield Parts(plan)
        return
    try:
        from distributed import Client, KilledWorker, LocalCluster
    except ImportError as error:
        raise ValueError(
            "--workers needs Dask, which is not installed: pip install 'gust_torch[sweeps]'"
        ) from error
    with ExitStack() as stack:
        address: Any = scheduler or stack.enter_context(_local_cluster(LocalCluster, workers))
        client = stack.enter_context(Client(address))
        try:
            yield DaskParts(plan, folder, start, client)
        except KilledWorker as error:
            raise OSError(
                f"a Dask worker died repeatedly ({error.task}), often for lack of memory or disk; "
                "the same command continues"
            ) from error


def _local_cluster(kind: type[Any], workers: int) -> Any:
    """Return a local cluster whose processes leave Ctrl-C to us: they inherit that SIGINT is ignored."""
    logging.getLogger("distributed").setLevel(logging.ERROR)  # a refusal stays one line
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return kind(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    finally:
        signal.signal(signal.SIGINT, previous)
