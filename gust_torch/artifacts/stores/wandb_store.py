"""Keeps artifacts in W&B: each upload is a run of the job type "upload"."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gust_torch.artifacts.stores.contract import Reference, Upload
from gust_torch.artifacts.stores.wandb_client import API_TIMEOUT, INIT_TIMEOUT, not_found, wandb_session
from gust_torch.artifacts.stores.wandb_login import check_login, check_place, offline_mode
from solvers.common.provenance import provenance

JOB_TYPE = "upload"


class WandbStore:
    """A `Store` in W&B."""

    def __init__(
        self,
        project: str | None,
        entity: str | None,
        *,
        run_name: str | None,
        cache_dir: Path,
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
        check_place(project, "project")
        if entity:
            check_place(entity, "entity")
        self._offline = offline_mode()
        if not self._offline:
            check_login()
        self._project, self._entity, self._run_name = project, entity or None, run_name
        self._cache_dir = cache_dir

    def check(self, name: str, file: str) -> None:
        """Asks the server whether it knows the login.

        Raises:
            ValueError: wandb is not installed, the login is refused, or W&B cannot be reached.
        """
        with wandb_session(self._cache_dir, f"W&B project {self._project}") as wandb:
            if not self._offline:
                wandb.Api(timeout=API_TIMEOUT)

    def put(self, upload: Upload) -> Reference:
        """Log the file as an artifact and waits until W&B has it; offline, until the run folder is written.

        Raises:
            ValueError: W&B refuses it or cannot be reached, or has these bytes with other metadata.
        """
        metadata = {**upload.metadata, "sha256": upload.sha256, **provenance()}
        if self._offline:
            return self._put_offline(upload, metadata)
        subject = f"{self._project}/{upload.name}"
        with wandb_session(self._cache_dir, subject) as wandb:
            known = self._latest(wandb, upload.name)
        if known is not None and known.metadata.get("sha256") == upload.sha256:
            _check_same(known, upload)
            text = known.qualified_name
            return Reference(text, text, (f"{text} has these bytes already; nothing was uploaded",))
        with wandb_session(self._cache_dir, subject) as wandb, self._run(wandb) as run:
            logged = run.log_artifact(_artifact(wandb, upload, metadata)).wait()
            text = logged.qualified_name
            size = logged.size
        if size != upload.path.stat().st_size:
            raise ValueError(f"{text} has {size} bytes, {upload.path} has not; upload it again")
        return Reference(text, text)

    def _put_offline(self, upload: Upload, metadata: Mapping[str, object]) -> Reference:
        """Write an offline run; the version is known only after `wandb sync`."""
        with (
            wandb_session(self._cache_dir, f"{self._project}/{upload.name}") as wandb,
            self._run(wandb) as run,
        ):
            run.log_artifact(_artifact(wandb, upload, metadata))
            folder = Path(run.dir).parent
        text = f"{self._entity or '<entity>'}/{self._project}/{upload.name}:<version>"
        notes = (
            f"offline: {upload.path} was not uploaded; the run that will do it is {folder}",
            f"keep {upload.path} where it is and run, with a network:  wandb sync {folder}",
            "W&B then gives the artifact its version, v0 for the first; put it in place of <version>",
        )
        return Reference(text, str(folder), notes)

    def _run(self, wandb: Any) -> Any:
        """Return a run that does nothing but upload: it records no code, no console and no git state."""
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
        """Return the artifact's latest version; None where there is none yet."""
        owner = f"{self._entity}/" if self._entity else ""
        try:
            return wandb.Api(timeout=API_TIMEOUT).artifact(f"{owner}{self._project}/{name}:latest")
        except (wandb.errors.Error, ValueError) as error:
            if not_found(error):
                return None
            raise


def _artifact(wandb: Any, upload: Upload, metadata: Mapping[str, object]) -> Any:
    """wandb's artifact; neither staged nor cached, so that a large file is not copied on this machine."""
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
