"""Exit codes and error lines of commands."""

import errno
import os
import signal

import pytest

from solvers.common.command import run_command


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
