"""Keep artifacts in W&B: each upload is a run of the job type "upload".

The login is looked for without wandb, whose import takes seconds, and without reading a secret's value.
"""

import contextlib
import importlib
import json
import netrc
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from gust_torch.artifacts.store import RemoteFile, Upload
from solvers.common.provenance import provenance

JOB_TYPE = "upload"
API_TIMEOUT = 10  # seconds
INIT_TIMEOUT = 30  # seconds

_DEFAULT_SERVER = "https://api.wandb.ai"
_PLACE = re.compile(r"[^/\\#?%:<>\s]{1,128}")  # W&B's rule for projects and entities, without white space
_NOT_FOUND = "not found|could not find|does not exist"
# Words of an error -> what to do.
_REMEDIES = (
    (_NOT_FOUND, "check entity, project, name and version"),
    ("permission|403|denied", "check that your W&B login may use this entity and project"),
    (
        "timed out|did not respond|connection",
        "the server cannot be reached: check the network, or set WANDB_MODE=offline",
    ),
    ("401|key|credentials|authenticat", "check WANDB_API_KEY or run `wandb login --relogin`"),
)
# The environment and wandb's caches belong to the whole process; a download of wandb's is parallel by itself.
_one_at_a_time = threading.RLock()


def open_artifact(reference: str, cache_dir: Path) -> RemoteFile:
    """Look up the file of an artifact "entity/project/name:version"; wandb reads no ranges of it.

    Args:
        reference: The artifact.
        cache_dir: Folder below which wandb may keep its files.

    Raises:
        ValueError: No login, no such artifact, not one file in it, no access, or W&B cannot be reached.
    """
    check_login()
    with wandb_session(cache_dir, reference) as wandb:
        artifact = wandb.Api(timeout=API_TIMEOUT).artifact(reference)
        entries: dict[str, Any] = dict(artifact.manifest.entries)
    if len(entries) != 1:
        listed = ", ".join(sorted(entries)[:5]) or "none"
        raise ValueError(f"{reference} has {len(entries)} files ({listed}); upload one tarball an artifact")
    ((file, entry),) = entries.items()

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


class WandbStore:
    """W&B as a place for artifacts, like `FsspecStore`."""

    def __init__(
        self, project: str | None, entity: str | None, *, run_name: str | None, cache_dir: Path
    ) -> None:
        """Check what can be checked without wandb.

        Args:
            project: W&B project.
            entity: W&B entity; None means that of the login.
            run_name: Name of the run; None lets W&B choose one.
            cache_dir: Folder below which wandb keeps its files.

        Raises:
            ValueError: There is no project, a name has characters that W&B refuses, or no login is known.
        """
        if not project:
            raise ValueError("no W&B project; give --project or set WANDB_PROJECT")
        for value, flag in ((project, "--project"), (entity, "--entity")):
            if value and not _PLACE.fullmatch(value):
                raise ValueError(f"{value!r} is no name that W&B takes; correct {flag}")
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "disabled":
            raise ValueError("WANDB_MODE=disabled would drop the upload; unset it, or set WANDB_MODE=offline")
        self._offline = mode in ("offline", "dryrun")
        if not self._offline:
            check_login()
        self._project, self._entity, self._run_name = project, entity or None, run_name
        self._cache_dir = cache_dir

    def check(self, name: str, file: str) -> None:
        """Ask the server whether it knows the login."""
        with wandb_session(self._cache_dir, f"W&B project {self._project}") as wandb:
            if not self._offline:
                wandb.Api(timeout=API_TIMEOUT)

    def put(self, upload: Upload) -> list[str]:
        """Log the file as an artifact and wait until W&B has it; offline, until the run folder is written.

        The file is neither staged nor cached: a large one is not copied on this machine.

        Returns:
            Lines to print: what was done and is left to do, and last the reference.
        """
        with wandb_session(self._cache_dir, f"{self._project}/{upload.name}") as wandb:
            if not self._offline and (known := self._known(wandb, upload)):
                return [f"{known} has these bytes already; nothing was uploaded", known]
            metadata = {**upload.metadata, "sha256": upload.sha256, **provenance()}
            artifact = wandb.Artifact(upload.name, type=upload.type, metadata=metadata)
            path = str(upload.path.absolute())
            artifact.add_file(path, name=upload.path.name, policy="immutable", skip_cache=True)
            with self._run(wandb) as run:
                logged = run.log_artifact(artifact)
                if self._offline:
                    return self._offline_lines(upload, Path(run.dir).parent)
                logged.wait()
                reference, size = str(logged.qualified_name), logged.size
        upload.check_unchanged()
        if size != upload.path.stat().st_size:
            raise ValueError(f"{reference} has {size} bytes, {upload.path} has not; upload it again")
        return [reference]

    def _known(self, wandb: Any, upload: Upload) -> str | None:
        """Name the artifact's latest version where it has these very bytes."""
        owner = f"{self._entity}/" if self._entity else ""
        try:
            known = wandb.Api(timeout=API_TIMEOUT).artifact(f"{owner}{self._project}/{upload.name}:latest")
        except (wandb.errors.Error, ValueError) as error:
            if re.search(_NOT_FOUND, str(error).lower()):
                return None
            raise
        if known.metadata.get("sha256") != upload.sha256:
            return None
        ours = json.loads(json.dumps(upload.metadata))
        theirs = {key: value for key, value in known.metadata.items() if key in ours}
        if known.type != upload.type or theirs != ours:
            raise ValueError(
                f"{known.qualified_name} has these bytes already, as {known.type} {json.dumps(theirs)}; edit "
                "its metadata on its W&B page, or upload under another name"
            )
        return str(known.qualified_name)

    def _offline_lines(self, upload: Upload, folder: Path) -> list[str]:
        """Say what is left to do; the version is known only after `wandb sync`."""
        return [
            f"offline: {upload.path} was not uploaded; the run that will do it is {folder}",
            f"keep {upload.path} where it is and run, with a network:  wandb sync {folder}",
            "W&B then gives the artifact its version, v0 for the first; put it in place of <version>",
            f"{self._entity or '<entity>'}/{self._project}/{upload.name}:<version>",
        ]

    def _run(self, wandb: Any) -> Any:
        """Start a run that does nothing but upload: it records no code, no console and no git state."""
        return wandb.init(
            project=self._project,
            entity=self._entity,
            name=self._run_name,
            job_type=JOB_TYPE,
            dir=os.environ["WANDB_DIR"],
            mode="offline" if self._offline else "online",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, init_timeout=INIT_TIMEOUT
            ),
        )


def check_login() -> None:
    """Check that there is a login; whether the server accepts it is seen later.

    Raises:
        ValueError: There is none.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _DEFAULT_SERVER).netloc.rpartition("@")[2]
    given = os.environ.get("NETRC")
    names = [Path(given).expanduser()] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    try:
        if any(netrc.netrc(path).authenticators(host) for path in names if path.is_file()):
            return
    except netrc.NetrcParseError as error:
        text = f"{error.filename}, line {error.lineno}: {error.msg}; correct it or run `wandb login`"
        raise ValueError(text) from None
    raise ValueError(
        f"no W&B login for {host}; run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline to keep "
        "the run on this machine"
    )


@contextlib.contextmanager
def wandb_session(cache_dir: Path, subject: str) -> Iterator[ModuleType]:
    """Yield wandb without its chatter, one thread at a time.

    Args:
        cache_dir: Folder for runs, staged files and caches, unless wandb's own variables name others.
        subject: What is done, for messages.

    Raises:
        ValueError: wandb is not installed, or an error of it, the network or the disk in one line.
    """
    folder = cache_dir.absolute() / "wandb"
    settings = {
        "WANDB_DIR": str(cache_dir.absolute()),  # wandb adds the folder "wandb" itself
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ARTIFACT_DIR": str(folder / "artifacts"),
        "WANDB_SILENT": "true",
    }
    with _one_at_a_time:
        added = {name: value for name, value in settings.items() if not os.environ.get(name)}
        os.environ.update(added)
        try:
            # wandb falls back to a temporary folder, without a word, where it finds none
            Path(os.environ["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
            wandb = import_wandb()
            try:
                yield wandb
            except (wandb.errors.Error, ValueError, OSError) as error:
                raise ValueError(f"{subject}: {remedy(error)}") from error
        finally:
            for name in added:
                os.environ.pop(name, None)


def import_wandb() -> ModuleType:
    """Import wandb; raises ValueError where it is not installed."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError("wandb is not installed; pip install 'gust_torch[wandb]'") from error


def remedy(error: Exception) -> str:
    """Say on one line what wandb says, and what to do."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    what = next((what for words, what in _REMEDIES if re.search(words, text.lower())), None)
    return f"{text}; {what}" if what else text
