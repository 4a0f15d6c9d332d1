"""Keeps artifacts in W&B: each upload is a run of the job type "upload".

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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from gust_torch.artifacts.store import StoredArtifact, Upload
from solvers.common.provenance import provenance

JOB_TYPE = "upload"
API_TIMEOUT = 10  # seconds
INIT_TIMEOUT = 30  # seconds

_DEFAULT_SERVER = "https://api.wandb.ai"
_PLACE = re.compile(r"[^/\\#?%:<>\s]{1,128}")  # W&B's rule for projects and entities, without white space
# The environment and wandb's caches belong to the whole process; a download of wandb's is parallel by itself.
_one_at_a_time = threading.RLock()


class WandbFile:
    """A `RemoteFile` in a W&B artifact; read as a whole, wandb offers no ranges."""

    supports_ranges = False

    def __init__(self, reference: str, *, cache_dir: Path) -> None:
        """Look the artifact up.

        Args:
            reference: "entity/project/name:version".
            cache_dir: Folder below which wandb may keep its files.

        Raises:
            ValueError: No login, no such artifact, not one file in it, no access, or W&B cannot be reached.
        """
        check_login()
        self._reference, self._cache_dir = reference, cache_dir
        with wandb_session(cache_dir, reference) as wandb:
            self._artifact = wandb.Api(timeout=API_TIMEOUT).artifact(reference)
            entries: dict[str, Any] = dict(self._artifact.manifest.entries)
        if len(entries) != 1:
            listed = ", ".join(sorted(entries)[:5]) or "none"
            raise ValueError(
                f"{reference} has {len(entries)} files ({listed}); upload one tarball an artifact"
            )
        ((self._file, entry),) = entries.items()
        self.name: str = self._file.rpartition("/")[2]
        self.size: int | None = entry.size

    def read(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Never called, since there are no ranges."""
        raise ValueError(f"{self._reference}: W&B files are read as a whole; use download()")

    def download(self, path: Path) -> None:
        """Write the whole file to `path`; raises ValueError where W&B cannot be reached."""
        folder = path.with_name(f".{path.name}.wandb")
        shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
        try:
            with wandb_session(self._cache_dir, self._reference):
                self._artifact.download(root=str(folder), skip_cache=True)
                os.replace(folder / self._file, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class WandbStore:
    """A `Store` in W&B."""

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
            ValueError: The project or the login is missing.
        """
        if not project:
            raise ValueError("the W&B project is not known; give --project or set WANDB_PROJECT")
        for what, name in (("project", project), ("entity", entity)):
            if name and not _PLACE.fullmatch(name):
                raise ValueError(
                    f"the W&B {what} {name!r} must have 1 to 128 characters without spaces and any of "
                    rf"/\#?%:<>; correct --{what} or WANDB_{what.upper()}"
                )
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

    def put(self, upload: Upload) -> StoredArtifact:
        """Log the file as an artifact and wait until W&B has it; offline, until the run folder is written."""
        metadata = {**upload.metadata, "sha256": upload.sha256, **provenance()}
        subject = f"{self._project}/{upload.name}"
        if self._offline:
            return self._put_offline(upload, metadata, subject)
        with wandb_session(self._cache_dir, subject) as wandb:
            known = self._latest(wandb, upload.name)
        if known is not None and known.metadata.get("sha256") == upload.sha256:
            _check_same(known, upload)
            text = known.qualified_name
            return StoredArtifact(text, (f"{text} has these bytes already; nothing was uploaded",))
        with wandb_session(self._cache_dir, subject) as wandb, self._run(wandb) as run:
            logged = run.log_artifact(_artifact(wandb, upload, metadata)).wait()
            text, size = logged.qualified_name, logged.size
        upload.check_unchanged()
        if size != upload.path.stat().st_size:
            raise ValueError(f"{text} has {size} bytes, {upload.path} has not; upload it again")
        return StoredArtifact(text)

    def _put_offline(self, upload: Upload, metadata: Mapping[str, object], subject: str) -> StoredArtifact:
        """Write an offline run; the version is known only after `wandb sync`."""
        with wandb_session(self._cache_dir, subject) as wandb, self._run(wandb) as run:
            run.log_artifact(_artifact(wandb, upload, metadata))
            folder = Path(run.dir).parent
        notes = (
            f"offline: {upload.path} was not uploaded; the run that will do it is {folder}",
            f"keep {upload.path} where it is and run, with a network:  wandb sync {folder}",
            "W&B then gives the artifact its version, v0 for the first; put it in place of <version>",
        )
        return StoredArtifact(f"{self._entity or '<entity>'}/{self._project}/{upload.name}:<version>", notes)

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

    def _latest(self, wandb: Any, name: str) -> Any:
        """Look up the artifact's latest version; None where there is none yet."""
        owner = f"{self._entity}/" if self._entity else ""
        try:
            return wandb.Api(timeout=API_TIMEOUT).artifact(f"{owner}{self._project}/{name}:latest")
        except (wandb.errors.Error, ValueError) as error:
            if _not_found(error):
                return None
            raise


def _artifact(wandb: Any, upload: Upload, metadata: Mapping[str, object]) -> Any:
    """Make wandb's artifact; neither staged nor cached: a large file is not copied on this machine."""
    artifact = wandb.Artifact(upload.name, type=upload.type, metadata=dict(metadata))
    artifact.add_file(str(upload.path.absolute()), name=upload.path.name, policy="immutable", skip_cache=True)
    return artifact


def _check_same(known: Any, upload: Upload) -> None:
    """Raise ValueError where the same bytes are stored as something else."""
    ours = json.loads(json.dumps(upload.metadata))
    theirs = {key: value for key, value in known.metadata.items() if key in ours}
    if known.type != upload.type or theirs != ours:
        raise ValueError(
            f"{known.qualified_name} has these bytes already, as {known.type} {json.dumps(theirs)}; edit its "
            "metadata on its W&B page, or upload under another name"
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
    candidates = [Path(given).expanduser()] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in [path for path in candidates if path.is_file()][:1]:
        try:
            if netrc.netrc(path).authenticators(host) is not None:
                return
        except netrc.NetrcParseError as error:
            text = f"{path}, line {error.lineno}: {error.msg}; correct it or run `wandb login`"
            raise ValueError(text) from None
    raise ValueError(
        f"no W&B login for {host}; run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline to keep "
        "the run on this machine"
    )


@contextlib.contextmanager
def wandb_session(cache_dir: Path, subject: str) -> Iterator[ModuleType]:
    """Yield wandb, with its files below `cache_dir`, unless its own variables say where, and without its
    chatter; a second thread waits until the first has left the block.

    Args:
        cache_dir: Folder for runs, staged files and caches.
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


def _not_found(error: Exception) -> bool:
    """Whether an error means that an artifact or its project is not there."""
    text = str(error).lower()
    return "not found" in text or "could not find" in text or "does not exist" in text


def remedy(error: Exception) -> str:
    """Say on one line what wandb says, and what to do."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    lower = text.lower()
    if _not_found(error):
        return f"{text}; check entity, project, name and version"
    if "permission" in lower or "403" in lower or "denied" in lower:
        return f"{text}; check that your W&B login may use this entity and project"
    if "timed out" in lower or "did not respond" in lower or "connection" in lower:
        return f"the server cannot be reached ({text}); check the network, or set WANDB_MODE=offline"
    if "401" in lower or "key" in lower or "credentials" in lower or "authenticat" in lower:
        return f"{text}; check WANDB_API_KEY or run `wandb login --relogin`"
    return text
