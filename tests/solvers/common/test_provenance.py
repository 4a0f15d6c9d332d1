"""Version and commit, which never raise."""

import re
import subprocess
from collections.abc import Iterator

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


def test_changed_files_make_the_commit_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ls-files": "provenance.py", "rev-parse": "a" * 40, "status": " M solvers/x.py"}
    monkeypatch.setattr(module, "_git", lambda folder, *arguments: answers[arguments[0]])
    assert module.git_commit() == "a" * 40 + "-dirty"
