"""Version and commit, which never raise."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solvers.common import provenance as module


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Forget what earlier calls found, before and after."""
    for function in (module.package_version, module.git_commit):
        function.cache_clear()
    yield
    for function in (module.package_version, module.git_commit):
        function.cache_clear()


def test_entries_are_texts() -> None:
    entries = module.provenance()
    assert entries.keys() == {"package_version", "git_commit"}
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", entries["git_commit"])
    assert entries["package_version"]


def test_an_uninstalled_package_has_an_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISTRIBUTION", "no-such-distribution")
    assert module.package_version() == "unknown"


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 5)])
def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert module.git_commit() == "unknown"


def test_changed_files_make_the_commit_dirty(tmp_path: Path) -> None:
    source = Path(shutil.copy(module.__file__, tmp_path))

    def git(*arguments: str) -> None:
        options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit() -> str:
        code = "import provenance; print(provenance.git_commit())"
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    assert commit() == "unknown"  # no file of that repository
    git("add", source.name)
    git("commit", "-m", "first")
    clean = commit()
    assert re.fullmatch("[0-9a-f]{40}", clean)
    source.write_text(source.read_text() + "\n")
    assert commit() == f"{clean}-dirty"
