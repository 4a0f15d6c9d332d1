"""Where a file came from: the package's version and the git commit of its source."""

import functools
import importlib.metadata
import subprocess
from pathlib import Path

DISTRIBUTION = "gust_torch"
UNKNOWN = "unknown"


@functools.cache
def package_version() -> str:
    """Version of the installed distribution, or "unknown" when it runs from a bare source folder."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


@functools.cache
def git_commit() -> str:
    """Commit of the source folder this module runs from, with "-dirty" when tracked files differ from it.

    Returns:
        The 40 hex digits, or "unknown" outside a git checkout of this project (an installed package that
        merely lies below some other repository is not described by that repository's commit).
    """
    folder = Path(__file__).resolve().parent
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return UNKNOWN
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return UNKNOWN
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if changed else commit


def provenance() -> dict[str, str]:
    """Metadata entries `package_version` and `git_commit` that every file written carries."""
    return {"package_version": package_version(), "git_commit": git_commit()}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of one git command, or None where git is missing, fails or takes longer than five seconds."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
