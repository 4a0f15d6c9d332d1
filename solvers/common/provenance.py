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
    """Commit (40 hex digits) of the source that runs, with "-dirty" when tracked files differ from it.

    "unknown" outside a checkout of this project: a repository that merely lies above an installed package
    says nothing about it.
    """
    if not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return UNKNOWN
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or UNKNOWN


def provenance() -> dict[str, str]:
    """Metadata entries `package_version` and `git_commit` that every file written carries."""
    return {"package_version": package_version(), "git_commit": git_commit()}


def _git(*arguments: str) -> str:
    """Output of a git command beside this file; "" where git is missing, fails or takes too long."""
    try:
        command = ["git", *arguments]
        return subprocess.check_output(
            command, cwd=Path(__file__).parent, text=True, timeout=5, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return ""
