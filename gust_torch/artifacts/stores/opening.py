"""Finds the store or the file that a word on the command line or in the registry means."""

from pathlib import Path

from gust_torch.artifacts.reference import expand_reference, is_url
from gust_torch.artifacts.stores.contract import RemoteFile, Store
from gust_torch.artifacts.stores.urls import parse_url

WANDB = "wandb"
DEFAULT_CACHE = Path("artifacts/cache")


def open_store(
    store: str = WANDB,
    *,
    project: str | None = None,
    entity: str | None = None,
    run_name: str | None = None,
    cache_dir: Path = DEFAULT_CACHE,
) -> Store:
    """Open a store for uploads.

    Args:
        store: "wandb" or an fsspec URL such as "file:///data/store" or "s3://bucket/folder".
        project: W&B project; needed for W&B.
        entity: W&B entity; None means that of the login.
        run_name: Name of the W&B run that uploads.
        cache_dir: Folder below which W&B may keep its files.

    Raises:
        ValueError: The store is unknown, or its settings or its login are missing.
    """
    if store == WANDB:
        from gust_torch.artifacts.stores.wandb_store import WandbStore

        return WandbStore(project, entity, run_name=run_name, cache_dir=cache_dir)
    if not is_url(store):
        raise ValueError(f"unknown store {store!r}; give wandb, file:///folder or s3://bucket/folder")
    from gust_torch.artifacts.stores.fsspec_store import FsspecStore

    return FsspecStore(parse_url(store))


def open_reference(reference: str, *, cache_dir: Path = DEFAULT_CACHE) -> RemoteFile:
    """Open a stored file for reading.

    Args:
        reference: A URL, or a W&B artifact "entity/project/name:version".
        cache_dir: Folder below which W&B may keep its files.

    Raises:
        ValueError: There is no such file, it may not be read, or the store cannot be reached.
    """
    if is_url(reference):
        from gust_torch.artifacts.stores.fsspec_file import FsspecFile

        return FsspecFile(parse_url(reference))
    from gust_torch.artifacts.stores.wandb_file import WandbFile

    return WandbFile(expand_reference(reference), cache_dir=cache_dir)
