"""Finds the store or the file that a word on the command line or in the registry means."""

from pathlib import Path

from gust_torch.artifacts.reference import expand_reference, is_url
from gust_torch.artifacts.stores.contract import RemoteFile, Store
from gust_torch.artifacts.stores.urls import LOCAL, parse_url

WANDB = "wandb"
DEFAULT_CACHE = Path("artifacts/cache")


def open_store(
    store: str = WANDB,
    *,
    project: str | None = None,
    entity: str | None = None,
    run_name: str | None = None,
    cache_dir: Path = DEFAULT_CACHE,
    offline: bool = False,
) -> Store:
    """Opens a store for uploads.

    Args:
        store: "wandb" or an fsspec URL such as "file:///data/store" or "s3://bucket/folder".
        project: W&B project; needed for W&B.
        entity: W&B entity; None means that of the login.
        run_name: Name of the W&B run that uploads.
        cache_dir: Folder below which W&B may keep its files.
        offline: W&B writes a run folder to be synchronised later; also with WANDB_MODE=offline.

    Raises:
        ValueError: The store is unknown, or its settings or its login are missing.
    """
    if store == WANDB:
        from gust_torch.artifacts.stores.wandb_store import WandbStore

        return WandbStore(project, entity, run_name=run_name, cache_dir=cache_dir, offline=offline)
    if not is_url(store):
        raise ValueError(f"unknown store {store!r}; give wandb, file:///folder or s3://bucket/folder")
    from gust_torch.artifacts.stores.fsspec_store import FsspecStore

    return FsspecStore(parse_url(store))


def open_reference(
    reference: str,
    *,
    project: str | None = None,
    entity: str | None = None,
    cache_dir: Path = DEFAULT_CACHE,
    file: str | None = None,
    offline: bool = False,
) -> RemoteFile:
    """Opens a stored file for reading.

    Args:
        reference: What the registry's `artifact:` holds: a URL, or a W&B artifact such as
            "entity/project/burgers1d-subset:v0" or "burgers1d-subset:v0".
        project: W&B project of a reference that names none.
        entity: W&B entity of a reference that names none.
        cache_dir: Folder below which W&B may keep its files.
        file: Name of the file wanted from a W&B artifact of several files.
        offline: Refuse everything that needs the network.

    Raises:
        ValueError: There is no such file, it may not be read, or the store cannot be reached.
    """
    if is_url(reference):
        from gust_torch.artifacts.stores.fsspec_file import FsspecFile

        url = parse_url(reference)
        if offline and url.protocol not in LOCAL:
            raise ValueError(f"{reference} is not on this machine, and offline mode forbids the network")
        return FsspecFile(url)
    if offline:
        raise ValueError(f"{reference} is a W&B artifact, and offline mode forbids the network")
    from gust_torch.artifacts.stores.wandb_file import WandbFile

    full = expand_reference(reference, entity=entity, project=project)
    return WandbFile(full, cache_dir=cache_dir, file=file)
