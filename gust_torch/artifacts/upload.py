"""Upload one file as an artifact; whatever can be wrong is found before a byte is sent."""

import inspect
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gust_torch.artifacts.download import byte_progress
from gust_torch.artifacts.registry import json_problems
from gust_torch.artifacts.store import DEFAULT_CACHE, WANDB, Upload, open_store, stamp
from solvers.common.cli import parse, run_command
from solvers.common.files import file_sha256

OWN_KEYS = ("sha256", "package_version", "git_commit")  # set by the upload
MAX_KEYS = 100 - len(OWN_KEYS)  # W&B's limit, for all stores


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
    description = inspect.cleandoc(main.__doc__ or "")
    prog = "python scripts/upload_artifact.py"

    def run() -> None:
        options = parse(UploadOptions, arguments, prog=prog, description=description)
        print("\n".join(upload_artifact(options)))

    return run_command(run, stopped="stopped; nothing was stored, the same command starts again")


def upload_artifact(options: UploadOptions) -> list[str]:
    """Upload a file; gives lines to print: what was done, and last the reference.

    Raises:
        ValueError: A name, the file, the metadata, the login or the store is not usable, or the upload
            failed.
    """
    path = options.file
    for what, name in (("name", options.name), ("type", options.type)):
        # W&B's rules, whatever the store.
        is_reserved = what == "type" and re.fullmatch("job|code|run_table|wandb-.*", name)
        if is_reserved or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,128}", name) or not name.strip("."):
            wanted = "1 to 128 letters, digits, '_', '-' and '.', no type that is W&B's own"
            raise ValueError(f"the artifact {what} {name[:129]!r} must be of {wanted}; choose another")
    metadata = parse_metadata(options.metadata)
    if not path.is_file() or not path.stat().st_size or not os.access(path, os.R_OK):
        raise ValueError(f"{path}: expected a readable file that is not empty; check the path, pack a folder")
    known = set(os.environ)
    try:
        store = open_store(
            options.store,
            project=options.project or os.environ.get("WANDB_PROJECT"),
            entity=options.entity or os.environ.get("WANDB_ENTITY"),
            run_name=options.run_name,
            cache_dir=options.cache_dir,
        )
        store.check(options.name, path.name)
        before = stamp(path)
        with byte_progress(path.stat().st_size, f"read {path.name}") as count:
            sha256 = file_sha256(path, count)
        return store.put(Upload(options.name, options.type, path, metadata, sha256, before))
    finally:
        for variable in set(os.environ) - known:  # that wandb was told, or sets
            del os.environ[variable]


def parse_metadata(text: str) -> dict[str, object]:
    """Read the JSON object that describes an artifact: '{"samples": 20}', or "@FILE".

    A ValueError says that it is no JSON, with the place of the mistake; no object; has a key twice, NaN or
    an infinity, too many keys, or one that the upload sets.
    """
    where = f"--metadata {text}" if text.startswith("@") else "--metadata"
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"""{where} is no JSON: {error}; write it like '{{"samples": 20}}'""") from error
    if not isinstance(value, dict) or len(value) > MAX_KEYS or not value.keys().isdisjoint(OWN_KEYS):
        wanted = f"at most {MAX_KEYS} keys without {', '.join(OWN_KEYS)}, which the upload sets"
        raise ValueError(f"{where}: expected a JSON object of {wanted}")
    for keys, problem in json_problems(value):
        raise ValueError(f"{where}: {'/'.join(map(str, keys))} {problem}")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a JSON object without keys that come twice."""
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice")
        result[key] = value
    return result
