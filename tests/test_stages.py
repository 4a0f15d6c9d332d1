"""Commands in a row: exit codes, signals, and whether a training came to its end."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gust_torch import demo, remote
from gust_torch.stages import run, training_falls_short, wanted_end
from solvers.common.stage import Stage, read_record

UNLIMITED: dict[str, Any] = {"max_steps": -1, "max_epochs": None}


def save(path: Path, *, step: int, epochs: int) -> Path:
    """Write what a Lightning checkpoint says of its progress."""
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = {"epoch_progress": {"current": {"processed": epochs}}}
    torch.save({"global_step": step, "loops": {"fit_loop": progress}}, path)
    return path


@pytest.mark.parametrize(
    ("trainer", "step", "epochs", "ended"),
    [
        ({"max_epochs": 3}, 30, 3, True),
        ({"max_epochs": 3}, 30, 2, False),
        ({"max_steps": 100, "max_epochs": None}, 100, 7, True),
        ({"max_steps": 100}, 35, 2, False),
        ({"max_steps": 100, "max_epochs": 2}, 35, 2, True),
        ({"max_epochs": None}, 5000, 999, False),
        ({"max_epochs": -1, "max_time": "00:01:00:00"}, 5, 1, True),
        (
            {"max_epochs": 9, "callbacks": [{"class_path": "lightning.EarlyStopping"}]},
            5,
            1,
            True,
        ),
    ],
)
def test_the_end_of_a_training_is_seen_in_its_checkpoint(
    trainer: dict[str, Any], step: int, epochs: int, ended: bool, tmp_path: Path
) -> None:
    end = wanted_end({"trainer": UNLIMITED | trainer})
    message = training_falls_short(save(tmp_path / "last.ckpt", step=step, epochs=epochs), end)
    assert (message == "") == ended
    assert ended or f"step {step}" in message
    assert training_falls_short(tmp_path / "nothing.ckpt", end)


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 15)", 143)]
)
def test_a_failed_command_ends_the_run_with_its_code(
    code: str, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run("-c", code)
    assert caught.value.code == expected
    assert f"exit code {expected}" in capsys.readouterr().err.splitlines()[-1]


_SLOW = """
import signal, sys, time
from pathlib import Path
def stop(number, frame):
    Path(sys.argv[1]).write_text(str(number)); sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)
Path(sys.argv[1]).write_text("started")
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_reaches_the_command(number: signal.Signals, group: bool, tmp_path: Path) -> None:
    """SIGTERM to the runner alone, and Ctrl-C, which a terminal sends to both; the command ends first."""
    mark = tmp_path / "mark"
    code = (
        "import sys\nfrom gust_torch.stages import run\nfrom solvers.common.cli import run_command\n"
        "sys.exit(run_command(lambda: run('-c', *sys.argv[1:])))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, _SLOW, str(mark)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    (os.killpg if group else os.kill)(process.pid, number)
    assert process.wait(timeout=60) == 128 + number
    assert mark.read_text() == str(int(number))


@pytest.fixture
def dataset(tmp_path: Path) -> remote.Dataset:
    """One that has been fetched."""
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {max_epochs: 4}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "burgers1d_train.h5").touch()
    settings = remote.Settings(
        wandb_datasets=("burgers1d_subset_v1",), store="file:///x", data_root=tmp_path / "data",
        runs=tmp_path / "runs", autoencoder_config=str(config),
    )  # fmt: skip
    return remote.Dataset(settings, "burgers1d", "grid", "0" * 64)


def test_a_training_that_stopped_is_not_done(
    dataset: remote.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its command says that it went well."""
    folder, reached, commands = dataset.folder("autoencoder"), [2, 4], []

    def train(*command: object, **options: object) -> None:
        commands.append(command)
        save(folder / "checkpoints" / "last.ckpt", step=10, epochs=reached.pop(0))

    monkeypatch.setattr(remote, "run", train)
    monkeypatch.setattr(remote, "print_settings", lambda *command: {"trainer": {"max_epochs": 4}})
    with pytest.raises(ValueError, match=r"epoch 2, but .* 4 epochs"):
        dataset.autoencoder()
    record = read_record(folder)
    assert record is not None
    assert not record["done"]
    dataset.autoencoder()
    dataset.autoencoder()
    assert Stage(folder, {}).is_done is False  # of another request
    assert (read_record(folder) or {})["done"]
    assert [command[-1] == "last" for command in commands] == [False, True]


def test_the_first_node_waits_for_nobody(dataset: remote.Dataset) -> None:
    with pytest.raises(ValueError, match=r"no .*burgers1d_train.*stage cache"):
        dataset.operator()


def test_other_nodes_wait_until_the_first_one_fails(
    dataset: remote.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(dataset.settings, node_rank=1)
    settings.runs.mkdir()
    for path, time_ns in ((settings.failed, 2), (settings.started, 1)):
        path.touch()
        os.utime(path, ns=(time_ns, time_ns))
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.01)
    with pytest.raises(ValueError, match="node 0 failed"):
        remote.wait_for(settings.runs / "never", settings)
    os.utime(settings.failed, ns=(0, 0))  # of an earlier run
    waited = []

    def make(seconds: float) -> None:
        waited.append(seconds)
        (settings.runs / "made").touch()

    monkeypatch.setattr(remote.time, "sleep", make)
    remote.wait_for(settings.runs / "made", settings)
    assert len(waited) == 1


def test_the_mark_of_a_failure_goes_with_a_success(
    dataset: remote.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataset.settings

    def fail() -> None:
        raise SystemExit(143)

    monkeypatch.setattr(remote, "find_datasets", lambda settings: [])
    monkeypatch.setattr(remote, "fetch", lambda settings: fail())
    with pytest.raises(SystemExit):
        remote.work(settings)
    assert settings.failed.exists()
    monkeypatch.setattr(remote, "fetch", lambda settings: None)
    remote.work(settings)
    assert not settings.failed.exists()


def test_settings_come_from_the_environment() -> None:
    given = {
        "WANDB_DATASETS": "a b",
        "STORE": "",
        "NNODES": "2",
        "DEVICES": "4",
        "SLURM_JOB_ID": "7",
        "RUNS": "x",
    }
    settings = remote.Settings.from_environment(given)
    assert settings.wandb_datasets == ("a", "b")
    assert (settings.store, settings.nnodes, settings.runs) == ("wandb", 2, Path("x"))
    with pytest.raises(ValueError, match="NODE_RANK"):
        remote.Settings.from_environment(given | {"NODE_RANK": "first"})


def test_the_demo_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that was stopped is not skipped the next time."""
    out, reached, commands = tmp_path / "demo", [35, 1000], []
    monkeypatch.chdir(Path(demo.__file__).parents[1])

    def fake(*command: object, output: Path | None = None) -> None:
        words = [str(word) for word in command]
        commands.append(next(word for word in words if "." in word))
        if output is not None:
            output.write_text("numbers\n")
        if "fit" in words:
            save(out / "vqvae" / "checkpoints" / "last.ckpt", step=reached.pop(0), epochs=1)

    class Info:
        metadata = {"complete": True}  # noqa: RUF012

    monkeypatch.setattr(demo, "run", fake)
    monkeypatch.setattr(demo, "read_hdf5_info", lambda path: Info)
    monkeypatch.setattr(demo, "print_settings", lambda *command: {"trainer": {"max_steps": 1000}})
    with pytest.raises(ValueError, match="step 35"):
        demo.make(out)
    done = len(commands)
    demo.make(out)
    assert commands[:done].count("solvers.py2d_turbulence.run_solver") == 2
    assert commands[done:] == [
        "scripts/train.py",
        "gust_torch.tokenizer",
        "gust_torch.analyze_reconstruction",
    ]
    assert capsys.readouterr().out == "numbers\n"
