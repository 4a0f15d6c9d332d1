"""The compressed stream: any gunzip reads it, its bytes depend on the input alone, memory is bounded."""

import gzip
import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gust_torch.artifacts.packaging.gzip_blocks import BLOCK_BYTES, gzip_stream
from gust_torch.artifacts.packaging.tar_stream import Member, tar_stream


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
@pytest.mark.parametrize("kind", ["zeros", "fields", "noise"])
def test_gzip(size: int, kind: str) -> None:
    data = {
        "zeros": lambda: bytes(size),
        "fields": lambda: np.sin(np.arange(size // 4 + 1) / 50, dtype="f4").tobytes()[:size],
        "noise": lambda: np.random.default_rng(0).bytes(size),
    }[kind]()
    pieces = [data[start : start + 300_000] for start in range(0, size, 300_000)]
    compressed = b"".join(gzip_stream(iter(pieces), 2))
    assert gzip.decompress(compressed) == data
    assert compressed == b"".join(gzip_stream(iter([data]), 1))
    bound = {"zeros": 0.01, "fields": 0.95, "noise": 1.001}[kind]
    assert len(compressed) < bound * size + 100


def test_gzip_streams() -> None:
    """What is read but not given back stays below a few blocks."""
    given = 0

    def blocks() -> Iterator[bytes]:
        nonlocal given
        for _ in range(60):
            given += 1
            yield bytes(BLOCK_BYTES)

    stream = gzip_stream(blocks(), 2)
    ahead = [given - count for count, _ in enumerate(itertools.islice(stream, 1, 50))]
    assert max(ahead) <= 2 * 2 + 3


def test_large_members_and_long_names() -> None:
    """Sizes above 8 GiB and names above 100 bytes need headers of their own."""
    member = Member("ü" * 120, Path("x"), 20 << 30, (0,))
    header = io.BytesIO(next(tar_stream([member], {})))
    with tarfile.open(fileobj=header) as tar:
        info = tar.next()
    assert (info.name, info.size, info.mtime) == (member.name, 20 << 30, 0)
    assert len(header.getvalue()) % tarfile.BLOCKSIZE == 0
