"""How every command ends: 0, or one line on standard error and an exit code that is not 0."""

import _thread
import argparse
import dataclasses
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

Options = TypeVar("Options")

REPEAT_SECONDS = 0.005

program: str | None = None
"""What the user typed instead of a command's own name, such as "gust-torch analyze"."""

REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.EROFS: "choose a place that can be written to",
    errno.EEXIST: "a file is in the way, choose another folder",
    errno.ENOTDIR: "a file is in the way, choose another folder",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another disk",
}


def one_line(error: Exception) -> str:
    """Return the message of an error on one line.

    An error straight from the operating system, "[Errno 13] Permission denied: 'x'", becomes "x: permission
    denied; choose a place that you may use". Of one in a reading process, what follows its traceback is kept.
    """
    if isinstance(error, OSError) and error.strerror and (error.filename or error.errno in REMEDIES):
        remedy = REMEDIES.get(error.errno or 0, "check the path and the disk")
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}; {remedy}"
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def parse(
    options: type[Options],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    underscores: bool = False,
    default: Options | None = None,
) -> Options:
    """Parse a command line into a dataclass; a mistyped flag ends the program with code 2.

    `-` and `_` are the same in flags. The attributes' docstrings are the help texts.

    Args:
        options: A dataclass; what its `__post_init__` raises is raised here.
        arguments: The command line; None takes the program's.
        prog: The command as a user types it.
        description: What it does, shown above the flags.
        underscores: Whether the help spells flags with underscores.
        default: Values of what the command line does not give; by default those of the class.
    """
    # Checks of values wait until tyro is done, which would end the program in its own way.
    attributes = {"__post_init__": lambda self: None, "__doc__": options.__doc__}
    unchecked: Any = type(options.__name__, (options,), attributes)
    settings: dict[str, Any] = {} if default is None else {"default": default}
    parsed = tyro.cli(
        unchecked,
        args=arguments,
        prog=program or prog,
        description=description,
        use_underscores=underscores,
        config=(tyro.conf.FlagCreatePairsOff,),
        **settings,
    )
    given = [field.name for field in dataclasses.fields(options) if field.init]  # type: ignore[arg-type]
    return options(**{name: getattr(parsed, name) for name in given})


_EXISTING = tyro.conf.create_mutex_group(required=False)


@dataclass(frozen=True)
class ExistingRun:
    """What to do about an earlier run in the output directory; without either flag it is left alone.

    Attributes:
        overwrite: replace it.
        resume: continue it, bit for bit; its parameters are remembered and need not be given again.
    """

    overwrite: Annotated[bool, _EXISTING] = False
    resume: Annotated[bool, _EXISTING] = False


def find_resumed(arguments: Sequence[str] | None) -> Path | None:
    """Return the `--output_dir` of a command line that also says `--resume`, None otherwise."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_dir", "--output-dir", type=Path, nargs="?")
    parser.add_argument("--resume", action="store_true")
    given, _ = parser.parse_known_args(arguments)
    return given.output_dir if given.resume else None


def run_command(
    command: Callable[[], int | None], *, stopped: str = "stopped; the same command continues"
) -> int:
    """Run a command and turn what it raises into an exit code.

    Args:
        command: Does the work; what it returns is the exit code, None means 0. A mistake of the user is a
            ValueError, trouble with a file an OSError, a flow that blows up a FloatingPointError; anything
            else is a bug and keeps its traceback.
        stopped: Printed when SIGINT or SIGTERM ends it: what to do next.

    Returns:
        The command's own code; 1 after an error; 128 + signal where a signal stopped it; 0 where the reader
        of its output (`| head`) had enough.
    """
    previous, hook = signal.signal(signal.SIGTERM, _raise_stop), sys.unraisablehook
    try:
        sys.unraisablehook = _repeat_lost_signal
        return command() or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush goes nowhere
        return 0
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except (_Stop, KeyboardInterrupt) as stop:
        print(stopped, file=sys.stderr)
        return 128 + _signal_of(type(stop))
    finally:
        signal.signal(signal.SIGTERM, previous)
        sys.unraisablehook = hook


class _Stop(BaseException):
    """SIGTERM, so that temporary files are cleaned up as after Ctrl-C."""


def _raise_stop(number: int, frame: object) -> None:
    raise _Stop


def _signal_of(kind: type[BaseException]) -> signal.Signals:
    return signal.SIGTERM if issubclass(kind, _Stop) else signal.SIGINT


def _repeat_lost_signal(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send a signal again whose exception met a finalizer or a weak reference's callback.

    Python drops what is raised there and tells `sys.unraisablehook`. The signal comes back a moment later,
    when the main thread does something else, and again if that is another finalizer.
    """
    if not issubclass(unraisable.exc_type, (_Stop, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)
        return
    number = _signal_of(unraisable.exc_type)
    timer = threading.Timer(REPEAT_SECONDS, _thread.interrupt_main, (number,))
    timer.daemon = True
    timer.start()
