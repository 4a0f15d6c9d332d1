"""Commands that follow each other, and whether a training has come to its end."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DEFAULT_EPOCHS = 1000  # Lightning's, where neither epochs nor steps are limited
SAVE_SECONDS = 30.0  # for a command that Ctrl-C of the terminal has reached too, before it is told again
STOP_SECONDS = 120.0  # for a command to save after a signal, before it is killed
# Lightning would take the commands of a batch script for tasks that srun started, and wait for the others.
HIDDEN = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")


def say(*lines: str) -> None:
    """Print on standard error."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def run(*command: object, launcher: tuple[object, ...] = (), output: Path | None = None) -> None:
    """Print a Python command as one would type it, then run it; a signal to this process reaches it too.

    Args:
        command: A script or "-m" and a module, and flags.
        launcher: What starts it, such as srun.
        output: File for what it prints on standard output.

    Raises:
        SystemExit: With its exit code, if that is not 0.
    """
    words = [str(word) for word in (*launcher, sys.executable, *command)]
    say("", f"$ {shlex.join(words)}")
    with open(output or os.devnull, "w" if output else "r", encoding="utf-8") as file:
        target = file if output else None
        # Inherited: the lock of the run, so that it is held as long as one of its commands lives.
        process = subprocess.Popen(words, env=_environment(), stdout=target, close_fds=False)
        try:
            code = process.wait()
        except BaseException as stop:
            if isinstance(stop, KeyboardInterrupt):  # it has reached the command by itself
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAVE_SECONDS)
            process.terminate()  # to save and stop; does nothing where it has ended
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    if code:
        code = 128 - code if code < 0 else code
        say(f"error: {command[0]} ended with exit code {code}, see above; the same command continues")
        raise SystemExit(code)


def print_settings(*command: object) -> dict[str, Any]:
    """Return the settings that a training would have; SystemExit where it does not understand its flags."""
    words = [sys.executable, *map(str, command), "--print_config"]
    result = subprocess.run(words, env=_environment(), stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(result.returncode)
    settings: dict[str, Any] = yaml.safe_load(result.stdout)
    return settings


def wanted_end(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where a training of these settings ends: steps, epochs (-1 for any number), or sooner by choice."""
    trainer = settings["trainer"]
    steps, epochs = trainer.get("max_steps", -1), trainer.get("max_epochs")
    if epochs is None:
        epochs = DEFAULT_EPOCHS if steps == -1 else -1
    stopping = any("EarlyStopping" in str(callback) for callback in trainer.get("callbacks") or [])
    return {"steps": steps, "epochs": epochs, "sooner": bool(stopping or trainer.get("max_time"))}


def training_falls_short(checkpoint: Path, end: Mapping[str, Any]) -> str:
    """Say how far a training with this last checkpoint came, "" where that is the end of `wanted_end`."""
    if not checkpoint.is_file():
        return "there is none"
    if end["sooner"]:
        return ""
    import torch  # takes seconds

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    progress = saved["loops"]["fit_loop"]["epoch_progress"]["current"]
    reached = {"steps": saved["global_step"], "epochs": progress["processed"]}
    limits = {name: end[name] for name in reached if end[name] >= 0}
    if any(limit <= reached[name] for name, limit in limits.items()):
        return ""
    goal = " or ".join(f"{limit} {name}" for name, limit in limits.items())
    return f"is of step {reached['steps']}, epoch {reached['epochs']}, but the training goes to {goal}"


def checkpoint_of(folder: Path) -> Path:
    """Return the best checkpoint of a training, or the last of one that was not validated."""
    best = folder / "checkpoints" / "best.ckpt"
    return best if best.exists() else best.with_name("last.ckpt")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in HIDDEN}
