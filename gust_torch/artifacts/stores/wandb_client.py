"""The boundary to wandb: imports it, keeps it quiet, puts its files in one place, translates its errors."""

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

API_TIMEOUT = 10  # seconds
INIT_TIMEOUT = 30  # seconds

# The environment and wandb's file cache belong to the whole process; one download of wandb's uses several
# connections by itself.
_one_at_a_time = threading.RLock()


def import_wandb() -> ModuleType:
    """Import wandb.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError("wandb is not installed; pip install 'gust_torch[wandb]'") from error


@contextlib.contextmanager
def wandb_session(cache_dir: Path, subject: str) -> Iterator[ModuleType]:
    """wandb, with its files below `cache_dir`, unless its own variables say where, and without its chatter.

    A second thread waits until the first has left the block.

    Args:
        cache_dir: Folder for runs, staged files and caches.
        subject: What is done, for messages.

    Raises:
        ValueError: wandb is not installed, or an error of it, the network or the disk in one line.
    """
    folder = cache_dir.absolute() / "wandb"
    settings = {
        "WANDB_DIR": cache_dir.absolute(),  # wandb adds the folder "wandb" itself
        "WANDB_CACHE_DIR": folder / "cache",
        "WANDB_DATA_DIR": folder / "data",
        "WANDB_ARTIFACT_DIR": folder / "artifacts",
        "WANDB_SILENT": "true",
    }
    with _one_at_a_time, _environment({name: str(value) for name, value in settings.items()}):
        # wandb falls back to a temporary folder, without a word, where it finds none
        Path(os.environ["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
        wandb = import_wandb()
        try:
            yield wandb
        except (wandb.errors.Error, ValueError, OSError) as error:
            raise ValueError(f"{subject}: {remedy(error)}") from error


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set, for the time of the block."""
    added = {name: value for name, value in variables.items() if not os.environ.get(name)}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def not_found(error: Exception) -> bool:
    """Whether an error means that an artifact or its project is not there."""
    text = str(error).lower()
    return "not found" in text or "could not find" in text or "does not exist" in text


def remedy(error: Exception) -> str:
    """Return what wandb says, on one line, and what to do."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].rstrip(".")
    lower = text.lower()
    if not_found(error):
        return f"{text}; check entity, project, name and version"
    if "permission" in lower or "403" in lower or "denied" in lower:
        return f"{text}; check that your W&B login may use this entity and project"
    if "timed out" in lower or "did not respond" in lower or "connection" in lower:
        return f"the server cannot be reached ({text}); check the network, or set WANDB_MODE=offline"
    if "401" in lower or "key" in lower or "credentials" in lower or "authenticat" in lower:
        return f"{text}; check WANDB_API_KEY or run `wandb login --relogin`"
    return text
