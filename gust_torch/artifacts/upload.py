"""Uploads one file as an artifact; whatever can be wrong is found before a byte is sent."""

import os
from pathlib import Path

from gust_torch.artifacts.metadata import parse_metadata
from gust_torch.artifacts.stores.contract import Reference, Upload, check_name, check_type
from gust_torch.artifacts.stores.opening import DEFAULT_CACHE, WANDB, open_store
from gust_torch.artifacts.stores.progress import transfer_bar
from solvers.common.files import file_sha256


def upload_artifact(
    name: str,
    type: str,
    path: Path,
    metadata: str = "{}",
    *,
    store: str = WANDB,
    project: str | None = None,
    entity: str | None = None,
    run_name: str | None = None,
    cache_dir: Path = DEFAULT_CACHE,
) -> Reference:
    """Upload a file.

    Args:
        name: Name of the artifact.
        type: Its type, such as "dataset".
        path: The file.
        metadata: A JSON object, or "@FILE" with one.
        store: "wandb" or an fsspec URL.
        project: W&B project; needed for W&B only.
        entity: W&B entity; None means that of the login.
        run_name: Name of the W&B run.
        cache_dir: Folder below which W&B keeps its files.

    Returns:
        Where it is.

    Raises:
        ValueError: A name, the file, the metadata, the login or the store is not usable, or the upload
            failed.
    """
    check_name(name, "artifact name")
    check_type(type)
    described = parse_metadata(metadata)
    check_file(path)
    target = open_store(store, project=project, entity=entity, run_name=run_name, cache_dir=cache_dir)
    target.check(name, path.name)
    before = _stamp(path)
    reference = target.put(Upload(name, type, path, described, _digest(path)))
    if _stamp(path) != before:
        raise ValueError(f"{path} changed while it was uploaded; upload it again")
    return reference


def check_file(path: Path) -> None:
    """Check that a file can be uploaded.

    Raises:
        ValueError: It is missing, a folder or another thing that is no file, empty, or not readable.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; make a tarball of it first (scripts/package_dataset.py)")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; name a tarball")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; make it again")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read; check its permissions")


def _digest(path: Path) -> str:
    with transfer_bar(path.stat().st_size, f"check {path.name}") as bar:
        return file_sha256(path, bar.update)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is rewritten or replaced."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
