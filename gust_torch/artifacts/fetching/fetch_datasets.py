"""Puts packaged datasets of the registry into a folder: download, check, unpack, rename."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gust_torch.artifacts.fetching.cache import ArtifactCache
from gust_torch.artifacts.fetching.root import DatasetRoot
from gust_torch.artifacts.fetching.space import check_space, format_bytes
from gust_torch.artifacts.fetching.work import Outcome, Work
from gust_torch.artifacts.reference import expand_reference
from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.registry.file import DEFAULT_REGISTRY, load_registry
from gust_torch.artifacts.stores.contract import RemoteFile
from gust_torch.artifacts.stores.opening import DEFAULT_CACHE, open_reference
from solvers.common.cli import one_line

DEFAULT_ROOT = Path("data/pdebench")
DEFAULT_WORKERS = 8  # reads at a time; a network is idle most of the time with fewer

UP_TO_DATE = "up to date"


@dataclass(frozen=True)
class Fetched:
    """A dataset that is in its place.

    Attributes:
        name: The dataset.
        files: Its files and folders.
        size: Their bytes.
        source: "fetched", "from cache" or "up to date".
    """

    name: str
    files: tuple[Path, ...]
    size: int
    source: str

    def line(self) -> str:
        """One line about it."""
        names = " ".join(path.name for path in self.files)
        return f"{self.name}: {names}, {format_bytes(self.size)}, {self.files[0].parent}, {self.source}"


@dataclass(frozen=True)
class Source:
    """Where datasets come from.

    Attributes:
        cache: Folder of downloaded tarballs.
        registry: The registry file.
        entity: W&B entity of references without one; default WANDB_ENTITY.
        project: W&B project of references without one; default WANDB_PROJECT.
        offline: Use the cache only.
        workers: Ranges to download at the same time, over all datasets.
    """

    cache: Path = DEFAULT_CACHE
    registry: Path = DEFAULT_REGISTRY
    entity: str | None = None
    project: str | None = None
    offline: bool = False
    workers: int = DEFAULT_WORKERS

    def __post_init__(self) -> None:
        """Check the number of workers."""
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; give 1 or more")

    def opener(self, entry: DatasetEntry) -> Callable[[], RemoteFile] | None:
        """Return what finds a dataset's stored file; None offline.

        Raises:
            ValueError: Its W&B entity or project is not known.
        """
        if self.offline:
            return None
        reference = expand_reference(entry.artifact, entity=self.entity, project=self.project)
        return functools.partial(open_reference, reference, cache_dir=self.cache)


def fetch(
    names: Sequence[str],
    root: Path,
    source: Source,
    *,
    overwrite: bool = False,
    report: Callable[[Fetched], None] = lambda fetched: None,
) -> list[Fetched]:
    """Put datasets into a folder, in parallel; those that are there already cost nothing.

    Args:
        names: Datasets of the registry.
        root: The folder.
        source: Where they come from.
        overwrite: Whether files in `root` that this fetch did not put there may be replaced.
        report: Called for each dataset that is in place, in the order of `names`, also where others failed.

    Returns:
        What is in place now.

    Raises:
        ValueError: A name is unknown, a file is in the way, a disk is too small, or a dataset cannot be had.
        OSError: A disk fails or is full.
    """
    registry = load_registry(source.registry)
    entries = [registry[name] for name in dict.fromkeys(names)]
    _refuse_shared(entries)
    place = DatasetRoot(root)
    wanted = [entry for entry in entries if not place.is_current(entry)]
    openers = {entry.name: source.opener(entry) for entry in wanted}
    if not overwrite:
        for entry in wanted:
            place.refuse_strangers(entry)
    cache = ArtifactCache(source.cache)
    missing = sum({entry.sha256: cache.missing_bytes(entry) for entry in wanted}.values())
    unpacked = sum(entry.unpacked for entry in wanted if not place.is_staged(entry))
    check_space([(source.cache, 0 if source.offline else missing), (root, unpacked)])
    outcomes = Work(place, cache, openers, source.workers, overwrite).run(wanted, missing + unpacked)
    return _finish(entries, root, outcomes, report)


def _finish(
    entries: Sequence[DatasetEntry],
    root: Path,
    outcomes: Mapping[str, Outcome],
    report: Callable[[Fetched], None],
) -> list[Fetched]:
    """Report what is in place, then raises what went wrong.

    Raises:
        ValueError: Some datasets could not be had.
        OSError: One could not, because of the disk.
    """
    done, failed = [], []
    for entry in entries:
        outcome = outcomes.get(entry.name, UP_TO_DATE)
        if isinstance(outcome, Exception):
            failed.append(outcome)
            continue
        files = tuple(root / member for member in entry.splits.values())
        done.append(Fetched(entry.name, files, entry.unpacked, outcome))
        report(done[-1])
    if len(failed) == 1:
        raise failed[0]
    if failed:
        lines = "; ".join(one_line(error) for error in failed)
        raise ValueError(f"{len(failed)} of {len(entries)} datasets could not be fetched: {lines}")
    return done


def _refuse_shared(entries: Sequence[DatasetEntry]) -> None:
    """Look for datasets that cannot lie in one folder.

    Raises:
        ValueError: Two have a file of the same name.
    """
    owners: dict[str, str] = {}
    for entry in entries:
        for member in entry.splits.values():
            # Some file systems take names that differ in case for one.
            other = owners.setdefault(member.casefold(), entry.name)
            if other != entry.name:
                raise ValueError(
                    f"{other} and {entry.name} both hold {member}; fetch one with another --root"
                )
