"""Keep artifacts in W&B: each upload is a run of the job type "upload".

The login is looked for without wandb, whose import takes seconds, and without reading a secret's value.
"""

import contextlib
import json
import netrc
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from gust_torch.artifacts.store import RemoteFile, Upload
from solvers.common.provenance import provenance

_TIMEOUT = 10  # seconds
# A run does nothing but upload: it records no code, no console and no git state.
_NOTHING: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
_NOT_FOUND = "not found|could not find|does not exist"
# Words of an error -> what to do.
_REMEDIES = {
    _NOT_FOUND: "check entity, project, name and version",
    "permission|403|denied": "check that your W&B login may use this entity and project",
    "timed out|respond|connection": "server cannot be reached: check the network, or set WANDB_MODE=offline",
    "401|key|credentials|authenticat": "check WANDB_API_KEY or run `wandb login --relogin`",
}


def open_artifact(reference: str, cache_dir: Path) -> RemoteFile:
    """Look up the only file of an artifact "entity/project/name:version"; wandb reads no ranges of it."""
    check_login()
    with wandb_session(cache_dir, reference) as wandb:
        artifact = wandb.Api(timeout=_TIMEOUT).artifact(reference)
        if (count := len(artifact.manifest.entries)) != 1:
            raise ValueError(f"has {count} files; upload one tarball an artifact")
    ((file, entry),) = artifact.manifest.entries.items()

    def download(path: Path) -> None:
        folder = path.with_name(f".{path.name}.wandb")
        shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
        try:
            with wandb_session(cache_dir, reference):
                artifact.download(root=str(folder), skip_cache=True)
                os.replace(folder / file, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return RemoteFile(file.rpartition("/")[2], entry.size, download)


@dataclass(frozen=True)
class WandbStore:
    """W&B as a place for artifacts; what can be checked without wandb is checked at once.

    Where `entity` is None it is that of the login; files of wandb's own go below `cache_dir`.
    """

    project: str | None
    entity: str | None
    run_name: str | None
    cache_dir: Path

    def __post_init__(self) -> None:
        for what, name in (("project", self.project or ""), ("entity", self.entity)):
            # W&B's rule, without white space
            if name is not None and not re.fullmatch(r"[^/\\#?%:<>\s]{1,128}", name):
                raise ValueError(f"{name!r} is no W&B {what}; give --{what} or set WANDB_{what.upper()}")
        if os.environ.get("WANDB_MODE") == "disabled":
            raise ValueError("WANDB_MODE=disabled would drop the upload; unset it, or set WANDB_MODE=offline")
        if not _is_offline():
            check_login()

    def check(self, name: str, file: str) -> None:
        """Ask the server whether it knows the login."""
        with wandb_session(self.cache_dir, f"W&B project {self.project}") as wandb:
            if not _is_offline():
                wandb.Api(timeout=_TIMEOUT)

    def put(self, upload: Upload) -> list[str]:
        """Log the file as an artifact and wait until W&B has it; offline, until the run folder is written.

        Gives lines to print: what was done and is left to do, and last the reference.
        """
        with wandb_session(self.cache_dir, f"{self.project}/{upload.name}") as wandb:
            if not _is_offline() and (known := self._known(wandb, upload)):
                return [f"{known} has these bytes already; nothing was uploaded", known]
            metadata = {**upload.metadata, "sha256": upload.sha256, **provenance()}
            artifact = wandb.Artifact(upload.name, type=upload.type, metadata=metadata)
            # Neither staged nor cached: a large file is not copied on this machine.
            path = str(upload.path.absolute())
            artifact.add_file(path, name=upload.path.name, policy="immutable", skip_cache=True)
            with wandb.init(
                project=self.project,
                entity=self.entity,
                name=self.run_name,
                job_type="upload",
                dir=os.environ["WANDB_DIR"],
                mode="offline" if _is_offline() else "online",
                settings=wandb.Settings(**_NOTHING, init_timeout=30),
            ) as run:
                logged = run.log_artifact(artifact)
                if _is_offline():
                    folder = Path(run.dir).parent
                    owner = f"{self.entity or '<entity>'}/{self.project}"
                    return [
                        f"offline: {upload.path} was not uploaded; the run that will do it is {folder}",
                        f"keep {upload.path} where it is and run, with a network:  wandb sync {folder}",
                        "W&B then gives the artifact its version; put it in place of <version>",
                        f"{owner}/{upload.name}:<version>",
                    ]
                logged.wait()
            upload.check_unchanged()
            if logged.size != upload.path.stat().st_size:
                raise ValueError(f"{logged.qualified_name} has {logged.size} bytes; upload it again")
            return [str(logged.qualified_name)]

    def _known(self, wandb: Any, upload: Upload) -> str | None:
        """Name the artifact's latest version where it has these very bytes."""
        place = f"{self.entity}/{self.project}" if self.entity else self.project
        try:
            known = wandb.Api(timeout=_TIMEOUT).artifact(f"{place}/{upload.name}:latest")
        except (wandb.errors.Error, ValueError) as error:
            if not re.search(_NOT_FOUND, str(error).lower()):
                raise
            return None
        if known.metadata.get("sha256") != upload.sha256:
            return None
        ours = json.loads(json.dumps(upload.metadata))
        theirs = {key: value for key, value in known.metadata.items() if key in ours}
        if known.type != upload.type or theirs != ours:
            there = f"has these bytes already, as {known.type} {json.dumps(theirs)}"
            raise ValueError(f"{known.qualified_name} {there}; edit that, or upload under another name")
        return str(known.qualified_name)


def _is_offline() -> bool:
    return os.environ.get("WANDB_MODE") in ("offline", "dryrun")


def check_login() -> None:
    """Raise ValueError where there is no login; whether the server accepts it is seen later."""
    server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    host = urlsplit(server).netloc.rpartition("@")[2]
    given = os.environ.get("NETRC")
    files = [Path(name).expanduser() for name in ([given] if given else ["~/.netrc", "~/_netrc"])]
    has_key = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    try:
        if has_key or any(netrc.netrc(file).authenticators(host) for file in files if file.is_file()):
            return
    except netrc.NetrcParseError as error:
        raise ValueError(f"{error}; correct it or run `wandb login`") from None
    raise ValueError(f"no W&B login for {host}; run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline")


@contextlib.contextmanager
def wandb_session(cache_dir: Path, subject: str) -> Iterator[ModuleType]:
    """Yield wandb, without its chatter and with its files below a folder where its own variables name none.

    A ValueError says that it is not installed, or what it, the network or the disk raised, in one line.
    """
    folder = cache_dir.absolute()
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_DIR", str(folder))  # wandb adds the folder "wandb" itself
    for name, below in (("CACHE", "cache"), ("DATA", "data"), ("ARTIFACT", "artifacts")):
        os.environ.setdefault(f"WANDB_{name}_DIR", str(folder / "wandb" / below))
    # wandb falls back to a temporary folder, without a word, where it finds none
    Path(os.environ["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
    try:
        import wandb
    except ImportError as error:
        raise ValueError("wandb is not installed; pip install 'gust_torch[wandb]'") from error
    try:
        yield wandb
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise ValueError(f"{subject}: {remedy(error)}") from error


def remedy(error: Exception) -> str:
    """Say on one line what wandb says, and what to do."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    what = next((what for words, what in _REMEDIES.items() if re.search(words, text.lower())), None)
    return f"{text}; {what}" if what else text
