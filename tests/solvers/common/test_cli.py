"""Exit codes and error lines of commands."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from solvers.common.cli import ExistingRun, find_resumed, one_line, parse, run_command


def _raise(error: BaseException) -> None:
    raise error


def test_exit_code_is_the_commands_own() -> None:
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 3) == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("expected 2,\n got 3; give 2"), "error: expected 2, got 3; give 2\n"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x.h5"), "x.h5"),
    ],
)
def test_a_mistake_becomes_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: _raise(error)) == 1
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run_command(lambda: _raise(KeyError("bug")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_how_to_go_on(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def command() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(command) == 128 + number
    assert capsys.readouterr().err == "stopped; the same command continues\n"
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_a_finalizer_is_not_lost(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    class Resource:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def command() -> None:
        resource = Resource()
        del resource  # python drops the exception that is raised in here
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pass

    assert run_command(command) == 128 + number
    assert capsys.readouterr().err == "stopped; the same command continues\n"


def test_errors_of_the_operating_system_get_a_remedy(tmp_path: Path) -> None:
    missing, there = tmp_path / "no" / "such" / "file", tmp_path / "output"
    there.touch()
    with pytest.raises(FileNotFoundError) as caught:
        missing.open()
    assert one_line(caught.value) == f"{missing}: no such file or directory; check the path"
    with pytest.raises(FileExistsError) as exists:
        there.mkdir()
    assert one_line(exists.value) == f"{there}: file exists; a file is in the way, choose another folder"
    full = OSError(errno.ENOSPC, "No space left on device")  # names no file
    assert one_line(full) == "no space left on device; make room on the disk"
    own = "x exists; choose another --output"
    assert one_line(FileExistsError(own)) == own


def test_tracebacks_of_reading_processes_are_cut() -> None:
    error = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback\n  x\nValueError: a.h5: bad"
    )
    assert one_line(error) == "a.h5: bad"


@dataclasses.dataclass(frozen=True)
class _Options:
    """Of a command.

    Attributes:
        size: Points along an axis.
    """

    size: int
    name: str = "run"
    """What it is called."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"expected --size >= 1, got {self.size}")


def test_a_command_line_becomes_a_dataclass(capsys: pytest.CaptureFixture[str]) -> None:
    def read(*arguments: str, default: _Options | None = None) -> _Options:
        return parse(_Options, arguments, prog="x", description="Does it.", default=default)

    assert read("--size", "3") == _Options(3)
    assert type(read("--size", "3")) is _Options
    assert read("--name", "a", default=_Options(7)) == _Options(7, "a")
    with pytest.raises(ValueError, match="--size >= 1, got 0"):  # a value, which is the command's to refuse
        read("--size", "0")
    with pytest.raises(SystemExit, match="2"):
        read("--sizes", "3")
    with pytest.raises(SystemExit, match="0"):
        read("--help")
    shown = capsys.readouterr().out
    assert "Points along an axis" in shown
    assert "What it is called" in shown


@dataclass(frozen=True)
class Arguments:
    """A solver's command line in small."""

    output_dir: Path
    existing: Annotated[ExistingRun, tyro.conf.arg(name="")] = field(default_factory=ExistingRun)


def test_a_run_is_replaced_or_continued_not_both(capsys: pytest.CaptureFixture[str]) -> None:
    def given(*flags: str) -> ExistingRun:
        return parse(Arguments, ["--output_dir", "x", *flags], prog="run", description="").existing

    assert given() == ExistingRun()
    assert given("--overwrite") == ExistingRun(overwrite=True)
    assert given("--resume") == ExistingRun(resume=True)
    with pytest.raises(SystemExit) as caught:
        given("--resume", "--overwrite")
    assert caught.value.code == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--output_dir", "--output-dir"])
def test_the_folder_of_a_resumed_run_is_found_among_other_flags(flag: str) -> None:
    others = ["--NX", "32", "--fields", "a", "b", "--help"]
    assert find_resumed([flag, "x", *others, "--resume"]) == Path("x")
    assert find_resumed(["--resume", f"{flag}=x", *others]) == Path("x")
    assert find_resumed([flag, "x", *others]) is None
    assert find_resumed(["--resume"]) is None
    assert find_resumed(["--resume", "--output_dir"]) is None  # which the whole parser refuses


def test_no_module_needs_what_only_unix_has() -> None:
    """Locks are those of `filelock`: all of the solvers' modules but Dedalus's import without `fcntl`."""
    code = """
import importlib, pkgutil, sys
for name in ("fcntl", "termios", "resource", "pwd", "grp"):
    sys.modules[name] = None
import solvers
for module in pkgutil.walk_packages(solvers.__path__, "solvers."):
    if module.name.rpartition(".")[2] not in ("generate_rbc", "sampling", "simulate"):
        importlib.import_module(module.name)
import solvers.py2d_turbulence.simulate, gust_torch.remote, gust_torch.demo
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
