"""Uploads one file as an artifact; whatever can be wrong is found before a byte is sent."""

import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from gust_torch.artifacts.download import ByteProgress
from gust_torch.artifacts.registry import json_problems
from gust_torch.artifacts.store import (
    DEFAULT_CACHE,
    WANDB,
    StoredArtifact,
    Upload,
    check_name,
    check_type,
    open_store,
    stamp,
)
from solvers.common.cli import parse, run_command
from solvers.common.files import file_sha256

OWN_KEYS = ("sha256", "package_version", "git_commit")  # set by the upload
MAX_KEYS = 100 - len(OWN_KEYS)  # W&B's limit, for all stores

_REMEDY = """write it like '{"samples": 20}'"""


@dataclass(frozen=True)
class UploadOptions:
    """What is uploaded, and where to."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the artifact, such as burgers1d-subset."""
    type: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TYPE")]
    """Its type, such as dataset or model."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file to upload."""
    metadata: str = "{}"
    """A JSON object that describes the file, or @FILE with one."""
    store: str = WANDB
    """wandb, file:///folder, s3://bucket/folder, or another URL that fsspec writes to."""
    project: str | None = None
    """W&B project; default $WANDB_PROJECT."""
    entity: str | None = None
    """W&B entity; default $WANDB_ENTITY, then that of the login."""
    run_name: str | None = None
    """Name of the W&B run that uploads."""
    cache_dir: Path = DEFAULT_CACHE
    """Where W&B keeps its files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Upload a file and print its reference, which is what the registry's `artifact:` takes.

    Logins come from the environment: WANDB_API_KEY or `wandb login`; AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.
    """
    return run_command(
        lambda: _main(arguments), stopped="stopped; nothing was stored, the same command starts again"
    )


def _main(arguments: Sequence[str] | None) -> None:
    """Upload, and print where to."""
    description = inspect.cleandoc(main.__doc__ or "")
    options = parse(
        UploadOptions, arguments, prog="python scripts/upload_artifact.py", description=description
    )
    print(upload_artifact(options).report())


def upload_artifact(options: UploadOptions) -> StoredArtifact:
    """Upload a file.

    Raises:
        ValueError: A name, the file, the metadata, the login or the store is not usable, or the upload
            failed.
    """
    path = options.file
    check_name(options.name, "artifact name")
    check_type(options.type)
    metadata = parse_metadata(options.metadata)
    check_file(path)
    store = open_store(
        options.store,
        project=options.project or os.environ.get("WANDB_PROJECT"),
        entity=options.entity or os.environ.get("WANDB_ENTITY"),
        run_name=options.run_name,
        cache_dir=options.cache_dir,
    )
    store.check(options.name, path.name)
    before = stamp(path)
    with ByteProgress(path.stat().st_size, f"read {path.name}") as progress:
        sha256 = file_sha256(path, progress.count)
    return store.put(Upload(options.name, options.type, path, metadata, sha256, before))


def check_file(path: Path) -> None:
    """Check that a file can be uploaded; raises ValueError where not."""
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


def parse_metadata(text: str) -> dict[str, object]:
    """Read the JSON object that describes an artifact.

    Args:
        text: '{"samples": 20}', or "@FILE".

    Raises:
        ValueError: It is no JSON, with the place of the mistake; no object; has a key twice, NaN or an
            infinity, too many keys, or one that the upload sets.
    """
    where = "--metadata"
    if text.startswith("@"):
        where = f"--metadata file {text[1:]}"
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text; name a JSON file") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        rest = error.doc[error.pos : error.pos + 20]
        place = f"line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        before = f"before {rest!r}" if rest else "at its end"
        raise ValueError(f"{where} is no JSON at {place} {before}; {_REMEDY}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply; make it flatter") from error
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object; {_REMEDY}")
    if len(value) > MAX_KEYS:
        raise ValueError(f"{where} has {len(value)} keys, more than {MAX_KEYS}; group them in objects")
    if own := [key for key in OWN_KEYS if key in value]:
        raise ValueError(f"{where} has the key {own[0]!r}, which the upload sets itself; leave it out")
    for keys, problem in json_problems(value):
        raise ValueError(f"{where}: {'/'.join(map(str, keys))} {problem}")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a JSON object without keys that come twice."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice; remove one"
        )
    return result


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and infinities, which Python reads."""
    raise ValueError(f"holds {constant}, which is no JSON; give a finite number or null")
