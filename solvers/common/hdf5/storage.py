"""Whether every frame is stored, and in this file: external storage, virtual sources, empty chunks."""

import math
import os
from pathlib import Path

import h5py
import numpy as np
from h5py._hl.vds import VDSmap

NOT_STORED = -(1 << 62)
"""Address of a chunk without storage; it stays negative when the place within the chunk is added."""


def storage_problem(
    dataset: h5py.Dataset, count: int | None = None, *, allow_external: bool = False, here: bool = False
) -> str | None:
    """Say why some of the first rows of a dataset are not stored; None where all are.

    HDF5 reads rows that nobody has written, and those of a virtual dataset whose source is gone, as the fill
    value: as zeros, without a word.

    Args:
        dataset: Of any HDF5 file.
        count: Rows along axis 0 that must be there; all by default.
        allow_external: Accept values in a raw file beside it (external storage), which may be any file.
        here: Accept nothing that lies in another file: for data that are moved without their neighbors.
    """
    shape = dataset.shape
    if shape is None or 0 in shape or count == 0:  # a null data space has no values
        return None
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.COMPACT:
        return None
    if layout == h5py.h5d.VIRTUAL:
        return _virtual_problem(dataset, here=here)
    if layout == h5py.h5d.CONTIGUOUS:
        if properties.get_external_count():
            return _external_problem(dataset, properties, allowed=allow_external and not here)
        return None if dataset.id.get_offset() is not None else "it was allocated but never written"
    size, rows = properties.get_chunk(), shape[0] if count is None else count
    chunks = [-(-n // c) for n, c in zip((rows, *shape[1:]), size, strict=True)]
    if rows == shape[0] and dataset.id.get_num_chunks() == math.prod(chunks):
        return None
    stored: list[int] = []  # the row of each chunk: no more than the file holds
    dataset.id.chunk_iter(lambda chunk: stored.append(chunk.chunk_offset[0] // size[0]))
    index, counts = np.unique(np.array(stored, np.int64), return_counts=True)
    full = index[(counts == math.prod(chunks[1:])) & (index < chunks[0])]
    if len(full) == chunks[0]:
        return None
    gaps = np.flatnonzero(full != np.arange(len(full)))
    first = int(gaps[0] if len(gaps) else len(full)) * size[0]
    return f"sample {first} was never written (chunks without storage, {chunks[0] - len(full)} from there on)"


def chunk_addresses(dataset: h5py.Dataset) -> np.ndarray:
    """Position in the file of each chunk along axis 0, in bytes; `NOT_STORED` for chunks without storage.

    For chunks of whole rows, and datasets without chunks. One pass over the chunk index (1.6 microseconds a
    chunk): looking up single addresses is linear in the number of chunks in HDF5.
    """
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return np.array([NOT_STORED if offset is None else offset])
    rows = dataset.chunks[0]
    addresses = np.full(-(-dataset.shape[0] // rows), NOT_STORED)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        index = chunk.chunk_offset[0] // rows
        if index < len(addresses):  # a file that is being written may have grown
            addresses[index] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return addresses


def stored_elsewhere(file: h5py.File) -> list[str]:
    """Every object of a file whose values are not all stored in it: what must not be packed or sent alone."""
    problems: list[str] = []
    seen: set[h5py.Group] = set()

    def walk(group: h5py.Group, path: str) -> None:
        if group in seen:  # a group may contain itself
            return
        seen.add(group)
        for name in group:
            link = group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Group):
                walk(item, f"{path}/{name}")
            problem = None
            if isinstance(link, h5py.ExternalLink):
                problem = f"expected values in this file, found a link to {link.filename}"
            elif isinstance(item, h5py.Dataset):
                problem = storage_problem(item, here=True)
            if problem:
                problems.append(f"{path}/{name}: {problem}")

    walk(file["/"], "")
    return problems


def _external_problem(dataset: h5py.Dataset, properties: h5py.h5p.PropDCID, *, allowed: bool) -> str | None:
    """Judge values in raw files beside the HDF5 file."""
    folder = Path(dataset.file.filename).parent
    for index in range(properties.get_external_count()):
        name, offset, size = properties.get_external(index)
        path = folder / os.fsdecode(name)
        if not allowed:
            return f"expected values in this file, found external storage in {os.fsdecode(name)}"
        needed = offset + (size if size != h5py.h5f.UNLIMITED else 0)
        if not path.is_file() or path.stat().st_size < needed:
            return f"its external storage {path} is missing or shorter than {needed} bytes"
    return None


def _virtual_problem(dataset: h5py.Dataset, *, here: bool) -> str | None:
    """Judge a virtual dataset: its sources exist, hold what is mapped, and cover it."""
    folder = Path(dataset.file.filename).parent
    covered = 0
    for source in dataset.virtual_sources():
        covered += source.vspace.get_select_npoints()
        if source.file_name == ".":
            problem = _source_problem(dataset.file, source)
        elif here:
            return f"expected values in this file, found a virtual dataset over {source.file_name}"
        else:
            path = folder / source.file_name
            try:
                with h5py.File(path if path.is_file() else source.file_name, "r") as file:
                    problem = _source_problem(file, source)
            except FileNotFoundError:
                problem = "is missing; put it there"
            except OSError as error:
                problem = f"cannot be opened ({str(error).splitlines()[0]})"
        if problem:
            return f"the source {source.file_name}:{source.dset_name} of this virtual dataset {problem}"
    if covered < dataset.size:
        return f"its virtual sources give only {covered} of its {dataset.size} values"
    return None


def _source_problem(file: h5py.File, source: VDSmap) -> str | None:
    """Judge one source of a virtual dataset."""
    item = file.get(source.dset_name)
    if not isinstance(item, h5py.Dataset):
        return "is missing"
    if source.src_space.get_select_type() == h5py.h5s.SEL_HYPERSLABS:
        stop = source.src_space.get_select_bounds()[1]
        fits = len(stop) == item.ndim and all(last < n for last, n in zip(stop, item.shape, strict=True))
    else:
        fits = source.src_space.get_select_npoints() <= item.size
    if not fits:
        return f"has the shape {item.shape}, smaller than what is mapped"
    if item.is_virtual:
        return "is virtual itself; name the files with the values"
    return storage_problem(item)
