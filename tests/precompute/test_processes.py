"""Two processes write what one writes, also behind one that was killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch.latents.cache import CHECKSUMS, MISSING
from gust_torch.latents.writer import CacheWriter
from gust_torch.precompute.command import main

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "precompute_latent_cache.py"


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, env=environment, text=True, **options)


def in_process(arguments, at_sample):
    """Run the command in a process that calls `at_sample` before each batch is written."""
    write = CacheWriter.write

    def watched(writer, start, latents):
        at_sample(start)
        write(writer, start, latents)

    def work():
        torch.set_num_threads(1)  # thread pools do not survive a fork
        CacheWriter.write = watched
        sys.exit(main([str(argument) for argument in arguments]))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def send_at(sample, number, start):
    if start == sample:
        os.kill(os.getpid(), number)


@pytest.fixture
def arguments(root, config):
    """Of the command, but for the folder of the caches."""
    fixed = ["--tasks", "burgers1d", "--splits", "train", "--root", root, "--config", config()]
    return [*fixed, "--untrained", "--batch-size", "1", "--accelerator", "cpu"]


def test_killed_with_one_process_and_continued_with_two(run, root, arguments, tmp_path):
    assert run("burgers1d", root, *arguments[2:])[0] == 0
    expected = {
        path.name: path.read_bytes() for path in (tmp_path / "cache" / "burgers1d_train").glob("*.npy")
    }

    killed = tmp_path / "killed"
    part = killed / ".burgers1d_train.part"
    kill = partial(send_at, 20, signal.SIGKILL)
    process = in_process([*arguments, "--devices", "1", "--cache-dir", killed], kill)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (np.load(part / CHECKSUMS) != MISSING).sum() == 20
    assert not (killed / "burgers1d_train").exists()

    flags = ["--devices", "2", "--strategy", "ddp", "--cache-dir", killed]
    process = start(*arguments, *flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 1  # of the first process alone
    assert "8/8 samples" in err  # of the 15 that were missing, half
    folder = killed / "burgers1d_train"
    assert {path.name: path.read_bytes() for path in folder.glob("*.npy")} == expected


def test_sigterm_ends_both_processes(arguments, tmp_path, root):
    flags = ["--devices", "2", "--strategy", "ddp", "--cache-dir", tmp_path / "stopped"]
    slow = [
        argument for argument in arguments if argument != "--untrained"
    ]  # a training, which has collectives
    config = Path(arguments[arguments.index("--config") + 1])
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 100000"))
    process = start(*slow, *flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    last = tmp_path / "stopped" / "burgers1d_autoencoder" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)  # ends only when the second process has let go of the pipes
    assert process.returncode == 143, err
    assert out == ""
    assert "stopped by SIGTERM at step" in err
    assert "the same command continues" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_exits_with_the_signal_and_continues(arguments, tmp_path, capfd, number, num_workers):
    cache_dir = tmp_path / "stopped"
    flags = [*arguments, "--devices", "1", "--cache-dir", cache_dir, "--num-workers", num_workers]
    process = in_process(flags, partial(send_at, 20, number))
    process.join(60)
    assert process.exitcode == 128 + number
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "stopped; the same command continues\n"
    assert not (cache_dir / "burgers1d_train").exists()
    kept = np.load(cache_dir / ".burgers1d_train.part" / CHECKSUMS)
    assert kept[:19].min() >= 0
    assert kept[20:].max() == MISSING
    assert main([str(flag) for flag in flags]) == 0
    np.testing.assert_array_equal(np.load(cache_dir / "burgers1d_train" / CHECKSUMS)[:19], kept[:19])


def test_of_two_commands_at_once_one_works_and_the_other_says_so(arguments, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("gust_torch.latents.writer.LOCK_SECONDS", 0.2)
    cache_dir, here, go_on = tmp_path / "both", tmp_path / "here", tmp_path / "go_on"
    flags = [*arguments, "--devices", "1", "--cache-dir", cache_dir]

    def wait_for_the_other(start):
        here.touch()
        while not go_on.exists():
            time.sleep(0.01)

    process = in_process(flags, wait_for_the_other)
    try:
        while not here.exists():
            time.sleep(0.01)
        capfd.readouterr()
        assert main([str(flag) for flag in flags]) == 1
        err = capfd.readouterr().err
        assert "another process is writing it" in err
        assert len(err.splitlines()) == 1
    finally:
        go_on.touch()
        process.join(60)
    assert process.exitcode == 0
    assert main([str(flag) for flag in flags]) == 0
    assert "up to date" in capfd.readouterr().out
