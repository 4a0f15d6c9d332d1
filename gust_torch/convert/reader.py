"""Streams the frames of a source in blocks of bounded size, axes in the order of the common format."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import h5py
import numpy as np

from gust_torch.convert.families import Array
from gust_torch.convert.nodes import Nodes, field_dataset, place, reading, sample_nodes
from gust_torch.convert.source import Source
from solvers.common.hdf5.reader import open_hdf5
from solvers.common.hdf5.structure import fill_values

# Large enough that per-call costs vanish, small enough that a handful of copies stay far below 500 MB.
BLOCK_BYTES = 32 << 20
# A block may grow up to this where smaller ones would decompress the same chunks again and again.
MAX_BLOCK_BYTES = 96 << 20

_CANONICAL = "ntxyc"


@dataclass(frozen=True)
class Span:
    """Trajectories [first, last) and times [start, stop) of a source; only single ones are cut in time."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def num_trajectories(self) -> int:
        """Trajectories covered."""
        return self.last - self.first

    @property
    def num_frames(self) -> int:
        """Frames covered."""
        return self.num_trajectories * (self.stop - self.start)


@dataclass(frozen=True)
class Block:
    """Frames of a span.

    Attributes:
        span: Which trajectories and times.
        fields: name -> (n, t, x, y[, c]) float32.
        times: (n, t) float64.
    """

    span: Span
    fields: Mapping[str, np.ndarray]
    times: np.ndarray


def plan_spans(source: Source, block_bytes: int = BLOCK_BYTES) -> list[Span]:
    """Cuts a source into spans of about `block_bytes`, on chunk borders where that is possible.

    Whole trajectories as long as one fits, else pieces of one: outputs hold each trajectory in one piece.
    """
    trajectory_bytes = source.num_frames * source.frame_bytes
    chunk_n, chunk_t = source.chunk
    if trajectory_bytes <= block_bytes or 1 < chunk_n <= MAX_BLOCK_BYTES // trajectory_bytes:
        edges = block_edges(source.num_trajectories, trajectory_bytes, chunk_n, block_bytes)
        return [Span(a, b, 0, source.num_frames) for a, b in pairwise(edges)]
    edges = block_edges(source.num_frames, source.frame_bytes, chunk_t, block_bytes)
    return [
        Span(index, index + 1, a, b) for index in range(source.num_trajectories) for a, b in pairwise(edges)
    ]


def block_edges(total: int, unit_bytes: int, chunk: int, block_bytes: int) -> list[int]:
    """Cut `total` units into blocks of whole chunks, unless even one is too large to be read at once."""
    step = max(1, block_bytes // unit_bytes)
    if step >= chunk:
        step -= step % chunk
    elif chunk * unit_bytes <= MAX_BLOCK_BYTES:
        step = chunk
    return [*range(0, total, step), total]


class SourceReader:
    """Reads blocks of a source; made by `open_reader`."""

    def __init__(self, source: Source, nodes: Nodes) -> None:
        """Take a source and its open file's nodes."""
        self.source = source
        self._nodes = nodes

    def read(self, span: Span) -> Block:
        """Return the frames of `span`, as float32.

        Raises:
            ValueError: Data cannot be read, or hold NaN, Inf or values beyond float32; with the position.
        """
        with reading(self.source.path):
            return self._read(span)

    def _read(self, span: Span) -> Block:
        fields: dict[str, np.ndarray] = {}
        for array in self.source.family.arrays:
            values = self._read_array(array, span)
            parts = (
                {name: values[..., index] for index, name in enumerate(array.fields)}
                if len(array.fields) > 1
                else {array.fields[0]: values}
            )
            for name, part in parts.items():
                part = np.ascontiguousarray(part)
                self._check_finite(name, part, span)
                fields[name] = np.broadcast_to(part, (part.shape[0], span.stop - span.start, *part.shape[2:]))
        return Block(span, fields, self.source.times[span.first : span.last, span.start : span.stop])

    def blocks(self) -> Iterator[Block]:
        """All frames, trajectory by trajectory."""
        for span in plan_spans(self.source):
            yield self.read(span)

    def _read_array(self, array: Array, span: Span) -> np.ndarray:
        """One dataset over `span` as (n, t, x, y[, c]) float32; t is 1 where it is constant in time."""
        cuts = {"n": slice(span.first, span.last), "t": slice(span.start, span.stop)}
        selection = tuple(cuts.get(letter, slice(None)) for letter in array.axes)
        if "n" in array.axes:
            raw = _read(self._nodes[0][1], array, selection)
            axes = array.axes
        else:
            raw = np.stack([_read(node, array, selection) for _, node in self._nodes[span.first : span.last]])
            axes = "n" + array.axes
        order = [axes.index(letter) for letter in _CANONICAL if letter in axes]
        ones = [index for index, letter in enumerate(axes) if letter == "1"]
        shape = [raw.shape[axes.index(letter)] if letter in axes else 1 for letter in "ntxy"]
        if "c" in axes:
            shape.append(raw.shape[axes.index("c")])
        with np.errstate(over="ignore"):  # beyond float32 is found, with its position, by the finite check
            return raw.transpose(order + ones).reshape(shape).astype(np.float32, copy=False)

    def _check_finite(self, name: str, values: np.ndarray, span: Span) -> None:
        """Raise ValueError at the first value of (n, t, x, y[, c]) that is not finite."""
        # The sum of squares runs at the speed of memory and is finite only if every value is. Finite values
        # above 1e19 overflow it in float32, hence the second look.
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.dot(flat, flat)):
                return
        bad = ~np.isfinite(values)
        if not bad.any():
            return
        n, t, *rest = (int(index) for index in np.argwhere(bad)[0])
        raise ValueError(
            f"{self.source.path}: field {name!r} is {values[(n, t, *rest)]} (missing, or beyond float32) in "
            f"sample {self.source.samples[span.first + n]}, time {span.start + t}, grid point {tuple(rest)} "
            f"({int(bad.sum())} such values in this block); download the file again or leave it out"
        )


@contextmanager
def open_reader(source: Source) -> Iterator[SourceReader]:
    """Yield a reader of `source` over its open file.

    Raises:
        ValueError: The file cannot be opened.
    """
    with open_hdf5(source.path) as file:
        with reading(source.path):
            nodes = sample_nodes(file, source.family, len(source.samples))
        yield SourceReader(source, nodes)


def _read(node: h5py.Group, array: Array, selection: tuple[slice, ...]) -> np.ndarray:
    """Part of a dataset in its own type, NaN where it says that values are missing.

    Raises:
        ValueError: A chunk is damaged.
    """
    dataset = field_dataset(node, array)
    try:
        values = np.asarray(dataset[selection])
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{place(node, array.key)} cannot be read ({reason}); the file is damaged: download it again"
        ) from error
    for fill in fill_values(dataset):
        values[values == values.dtype.type(fill)] = np.nan
    return values
