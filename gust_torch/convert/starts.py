"""Which trajectories start from one state, and which are the same data twice.

Files of a parameter sweep often begin with the same random states: a trajectory held out of training would
then start as one in it does.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from gust_torch.convert.reader import BLOCK_BYTES, Span, block_edges, open_reader
from gust_torch.convert.source import Source

logger = logging.getLogger(__name__)


def trajectory_keys(sources: Sequence[Source], by: str) -> list[Hashable]:
    """Key of each trajectory in the order of the sources; those of one key belong into one split.

    Trajectories are compared by their first frames, to the bit. Where a first frame is the same everywhere in
    space, and says nothing, the middle and the last one decide.

    Args:
        sources: Checked sources.
        by: "group" for trajectories that start alike; "trajectory" for those that are alike throughout.

    Raises:
        ValueError: Two sources hold one trajectory.
    """
    places = [(source, index) for source in sources for index in range(source.num_trajectories)]
    starts = [start for source in sources for start in _starts(source)]
    alike: dict[bytes, list[int]] = defaultdict(list)
    for number, (digest, _) in enumerate(starts):
        alike[digest].append(number)
    keys: list[Hashable] = [digest for digest, _ in starts] if by == "group" else list(range(len(starts)))
    for digest, numbers in alike.items():
        if len(numbers) < 2:
            continue
        same: dict[bytes, list[int]] = defaultdict(list)
        is_flat = starts[numbers[0]][1]
        for number in numbers:
            whole = _whole(*places[number])
            same[whole].append(number)
            if is_flat or by == "trajectory":
                keys[number] = digest + whole
        if not is_flat:
            _refuse_copies([[places[number] for number in copies] for copies in same.values()])
    return keys


def _starts(source: Source) -> Iterator[tuple[bytes, bool]]:
    """Digest of the first frame of each trajectory, and whether all of its fields are the same everywhere."""
    with open_reader(source) as reader:
        for first, last in pairwise(
            block_edges(source.num_trajectories, source.frame_bytes, source.chunk[0], BLOCK_BYTES)
        ):
            fields = list(reader.read(Span(first, last, 0, 1)).fields.values())
            for index in range(last - first):
                frames = [values[index, 0] for values in fields]
                yield _digest(frames), all((frame == frame[:1, :1]).all() for frame in frames)


def _whole(source: Source, index: int) -> bytes:
    """Digest of the first, the middle and the last frame of a trajectory."""
    times = sorted({0, source.num_frames // 2, source.num_frames - 1})
    with open_reader(source) as reader:
        blocks = [reader.read(Span(index, index + 1, time, time + 1)) for time in times]
    return _digest([values for block in blocks for values in block.fields.values()])


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _refuse_copies(alike: Sequence[Sequence[tuple[Source, int]]]) -> None:
    """Refuse trajectories that two sources have; tell of those that one source has twice.

    Args:
        alike: Source and index of trajectories whose first, middle and last frames are the same.
    """
    for (first, i), *others in alike:
        for other, j in others:
            names = f"sample {first.samples[i]} of {first.path} and sample {other.samples[j]} of {other.path}"
            if other is first:
                logger.warning("%s start, go on and end alike; they go into one split", names)
            elif _are_equal(first, i, other, j):
                raise ValueError(
                    f"{names} are the same data; leave one of the files out (--pattern), or remove the copy"
                )


def _are_equal(first: Source, i: int, other: Source, j: int) -> bool:
    """Whether two trajectories are the same in every frame."""
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
