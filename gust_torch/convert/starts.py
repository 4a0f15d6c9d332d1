"""Which trajectories start from one state, and what is there twice.

Files of a parameter sweep often begin with the same random states: a trajectory held out of training would
then start as one in it does.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from gust_torch.convert.reader import BLOCK_BYTES, Span, block_edges, open_reader
from gust_torch.convert.source import Source

logger = logging.getLogger(__name__)


def trajectory_keys(sources: Sequence[Source]) -> tuple[list[Hashable], list[Hashable]]:
    """Keys of each trajectory in the order of the sources; those of one key belong into one split.

    Trajectories are compared by their first frames, to the bit: by the fields that the family names. Where
    these are the same everywhere in space, and say nothing, the middle and the last frame decide.

    Args:
        sources: Checked sources.

    Returns:
        Keys of trajectories that start alike, and keys of those that are alike throughout.

    Raises:
        ValueError: Two sources hold one trajectory, or a periodic axis one point twice.
    """
    for source in sources:
        _refuse_repeated_points(source)
    starts = [list(_frames(source, 0, source.family.start_fields)) for source in sources]
    counts = Counter(digest for source in starts for digest, _ in source)
    groups: list[Hashable] = []
    repeats: list[Hashable] = []
    seen: dict[bytes, tuple[Source, int]] = {}
    for number, (source, found) in enumerate(zip(sources, starts, strict=True)):
        wholes = _wholes(source) if any(counts[digest] > 1 for digest, _ in found) else None
        copies = []
        for index, (digest, is_flat) in enumerate(found):
            if wholes is None or counts[digest] == 1:
                groups.append(digest)
                repeats.append((number, index))
                continue
            whole, says_nothing = wholes[index]
            groups.append(whole if is_flat else digest)
            repeats.append(whole)
            first, other = seen.setdefault(whole, (source, index))
            if says_nothing or (first is source and other == index):
                continue
            if _are_equal(first, other, source, index):
                if first is not source:
                    raise ValueError(
                        f"{source.path}: sample {source.samples[index]} is the same data as sample "
                        f"{first.samples[other]} of {first.path}; leave one of the files out (--pattern), or "
                        "remove the copy"
                    )
                copies.append(f"sample {source.samples[index]} is sample {source.samples[other]}")
        if copies:
            logger.warning(
                "%s: %d trajectories repeat others (%s); these stay together",
                source.path,
                len(copies),
                copies[0],
            )
    return groups, repeats


def _frames(source: Source, time: int, names: Sequence[str] = ()) -> Iterator[tuple[bytes, bool]]:
    """Digest of one frame of each trajectory, and whether it is flat; of all or named fields."""
    edges = block_edges(source.num_trajectories, source.frame_bytes, source.chunk[0], BLOCK_BYTES)
    with open_reader(source) as reader:
        for first, last in pairwise(edges):
            read = reader.read(Span(first, last, time, time + 1)).fields
            fields = [read[name] for name in names or read]
            for index in range(last - first):
                frames = [values[index, 0] for values in fields]
                yield _digest(frames), all((frame == frame[:1, :1]).all() for frame in frames)


def _refuse_repeated_points(source: Source) -> None:
    """Refuse a periodic axis whose last point is the first one again.

    PDEBench's initial states repeat it, on cells that are all different: states alone prove nothing.
    """
    times = sorted({0, source.num_frames // 2, source.num_frames - 1})
    if len(times) < 3 or "periodic" not in source.grid.boundary:
        return
    last = min(source.num_trajectories, max(1, BLOCK_BYTES // source.frame_bytes))
    with open_reader(source) as reader:
        repeated = {"x", "y"}
        for time in times:
            if repeated:
                repeated &= _repeated_axes(source, reader.read(Span(0, last, time, time + 1)).fields)
    if repeated:
        raise ValueError(
            f"{source.path}: the last point along {' and '.join(sorted(repeated))} repeats the first, which "
            "on a periodic axis are one; leave it out of fields and coordinates"
        )


def _repeated_axes(source: Source, fields: Mapping[str, np.ndarray]) -> set[str]:
    """Periodic axes of fields (n, 1, x, y[, c]) on which the outer points are equal and their neighbors not.

    States that are symmetric about the end of the domain have equal outer points too, but then also the next.
    """
    axes = set()
    for axis, name in enumerate("xy", start=2):
        if source.grid.boundary[axis - 2] != "periodic" or source.shapes[next(iter(fields))][axis - 2] < 4:
            continue
        differs = np.zeros(3, bool)
        for values in fields.values():
            ends = np.take(values, [0, 1, -2, -1], axis=axis).swapaxes(0, axis)
            pairs = np.abs([ends[3] - ends[0], ends[1] - ends[0], ends[2] - ends[1]])
            differs |= pairs.reshape(3, -1).max(axis=1) > np.array([1e-5, 1e-3, 1e-3]) * np.std(
                values, dtype=np.float64
            )
        if differs.tolist() == [False, True, True]:
            axes.add(name)
    return axes


def _wholes(source: Source) -> list[tuple[bytes, bool]]:
    """Digest of the first, the middle and the last frame of each trajectory, and whether all are flat."""
    times = sorted({0, source.num_frames // 2, source.num_frames - 1})
    return [
        (b"".join(digest for digest, _ in frames), all(is_flat for _, is_flat in frames))
        for frames in zip(*(_frames(source, time) for time in times), strict=True)
    ]


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _are_equal(first: Source, i: int, other: Source, j: int) -> bool:
    """Whether two trajectories, alike in three frames, are alike in all."""
    if first.num_frames != other.num_frames:
        return False
    with open_reader(first) as one, open_reader(other) as two:
        for start, stop in pairwise(
            block_edges(first.num_frames, first.frame_bytes, first.chunk[1], BLOCK_BYTES)
        ):
            fields = one.read(Span(i, i + 1, start, stop)).fields
            copies = two.read(Span(j, j + 1, start, stop)).fields
            if not all(np.array_equal(fields[name], copies[name]) for name in fields):
                return False
    return True
