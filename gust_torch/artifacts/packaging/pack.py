"""Packs the files of a task into one tarball with a manifest, so that it can be uploaded and fetched as one.

The same files give the same tarball, byte for byte, wherever, whenever and with however many threads it is
packed (and with the same zlib): its sha256 names the data.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gust_torch.artifacts.member_names import MemberNames
from gust_torch.artifacts.packaging.describe import Description, describe
from gust_torch.artifacts.packaging.result import Package
from gust_torch.artifacts.packaging.sources import find_splits, find_task
from gust_torch.artifacts.packaging.tar_stream import Member, list_members
from gust_torch.artifacts.packaging.write import Contents, write_package
from gust_torch.artifacts.registry.entry import DatasetEntry

logger = logging.getLogger(__name__)


def package(
    name: str,
    root: Path,
    *,
    out: Path = Path("artifacts"),
    task: str | None = None,
    splits: Sequence[str] | None = None,
    metadata: Mapping[str, object] | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Package:
    """Packs train, val and test files of a task.

    Args:
        name: Of the data set; begins with the task unless `task` is given.
        root: Folder of `TASK_train.h5` (or `.zarr`) and the others.
        out: Folder for `NAME.tar.gz` and `NAME.manifest.json`.
        task: Default: the longest that `name` begins with.
        splits: Default: those that are there.
        metadata: Default: samples, resolution, fields and parameters as the files say.
        workers: Threads that compress; default: one a core.
        overwrite: Whether an existing other tarball may be replaced.

    Returns:
        What was packed; nothing is written where this very tarball is there already.

    Raises:
        ValueError: No files, or invalid, unfinished or changing ones; another tarball and no `overwrite`.
        BlockingIOError: Another process is packing it.
        OSError: The disk is full; what was there stays.
    """
    workers = _num_cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"expected workers >= 1, got {workers}")
    task = find_task(name, root) if task is None else task
    sources = find_splits(task, root, splits)
    descriptions = {split: describe(path) for split, path in sources.items()}
    entry = _draft(name, sources, descriptions, metadata)
    contents = _contents(entry, task, sources, descriptions)
    target = out / f"{name}.tar.gz"
    manifest = out / f"{name}.manifest.json"
    tarball, written = write_package(target, manifest, contents, workers=workers, overwrite=overwrite)
    return Package(
        name=name,
        kind=entry.kind,
        splits=entry.splits,
        metadata=entry.metadata,
        tarball=target,
        manifest=manifest,
        sha256=tarball.sha256,
        size=tarball.size,
        unpacked=contents.num_bytes,
        written=written,
    )


def _draft(
    name: str,
    sources: Mapping[str, Path],
    descriptions: Mapping[str, Description],
    metadata: Mapping[str, object] | None,
) -> DatasetEntry:
    """Return the entry before there is a tarball: its name and metadata are checked before anything long
    begins.

    Raises:
        ValueError: The name, the metadata or the splits are not good.
    """
    return DatasetEntry(
        name=name,
        artifact="not-uploaded:yet",
        kind=_common_kind(sources, descriptions),
        splits={split: path.name for split, path in sources.items()},
        sha256="0" * 64,
        size=1,
        unpacked=1,
        metadata=_facts(descriptions) if metadata is None else metadata,
    )


def _contents(
    entry: DatasetEntry, task: str, sources: Mapping[str, Path], descriptions: Mapping[str, Description]
) -> Contents:
    """Return what goes into the package.

    Raises:
        ValueError: A store holds what a tarball may not.
    """
    members = [member for path in sources.values() for member in list_members(path)]
    _check_names(members, entry)
    description = {
        "name": entry.name,
        "task": task,
        "kind": entry.kind,
        "splits": dict(entry.splits),
        "metadata": dict(entry.metadata),
        "sources": {split: dict(item.record) for split, item in descriptions.items()},
    }
    return Contents(description, members, tuple(sources.values()))


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _common_kind(sources: Mapping[str, Path], descriptions: Mapping[str, Description]) -> str:
    """Return the kind of all splits, which must be of one data set.

    Raises:
        ValueError: They differ in kind, fields, parameters or grid.
    """
    first, *others = descriptions
    expected = descriptions[first]
    for split in others:
        item = descriptions[split]
        for what, here, there in (
            ("kind", item.kind, expected.kind),
            ("fields", item.fields, expected.fields),
            ("parameters", item.parameters, expected.parameters),
            ("grid", (item.resolution or ())[1:], (expected.resolution or ())[1:]),
        ):
            if here != there:
                raise ValueError(
                    f"{sources[split]}: {what} {here}, {sources[first].name} has {there}; "
                    "convert them together"
                )
        if item.conversion != expected.conversion:
            logger.warning(
                "%s and %s come from different conversions; make sure that they share no trajectory",
                sources[split],
                sources[first].name,
            )
    return expected.kind


def _facts(descriptions: Mapping[str, Description]) -> dict[str, object]:
    """Metadata as the files say: samples (trajectories), resolution (times, x[, y]), fields, parameters."""
    items = list(descriptions.values())
    facts: dict[str, object] = {"samples": sum(item.samples for item in items)}
    resolutions = [item.resolution for item in items if item.resolution is not None]
    if resolutions:
        facts["resolution"] = list(max(resolutions))
    for key, names in (("fields", items[0].fields), ("parameters", items[0].parameters)):
        if names:
            facts[key] = list(names)
    return facts


def _check_names(members: Sequence[Member], entry: DatasetEntry) -> None:
    """Refuses what could not be fetched.

    Raises:
        ValueError: A name inside a store is not allowed in a tarball.
    """
    names = MemberNames(entry.splits.values())
    for member in members:
        try:
            names.admit(member.name, folder=member.is_folder)
        except ValueError as error:
            raise ValueError(f"{member.path}: {error}; rename or remove it") from error
