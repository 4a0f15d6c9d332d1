"""`scripts/run_remote_scale.sh` on PDEBench samples, offline: killed, continued, run once more."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATASET = "burgers1d_subset_v1"
TINY = (
    "--model.init_args.width 16 --model.init_args.num_heads 2 --model.init_args.num_layers 1 "
    "--trainer.enable_model_summary false --trainer.log_every_n_steps 1"
)
SECRET = "not-to-be-seen-anywhere"


@pytest.fixture(scope="module")
def published(
    script: Callable[[str], Callable[[list[str]], int]],
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folder with a registry whose data set lies in a file store: convert, package, upload, register."""
    folder = tmp_path_factory.mktemp("published")
    converted, packed, registry = folder / "converted", folder / "packed", folder / "registry.yaml"
    convert = ["burgers1d", "--root", str(shared_data / "upstream" / "pdebench"), "--out", str(converted)]
    assert script("convert_pdebench_multimodal")([*convert, "--samples", "3"]) == 0
    package = [DATASET, "--root", str(converted), "--out", str(packed)]
    assert script("package_dataset")(package) == 0
    upload = [
        "burgers1d-subset",
        "dataset",
        str(packed / f"{DATASET}.tar.gz"),
        "--metadata",
        '{"samples": 9}',
    ]
    store = ["--store", (folder / "store").as_uri()]
    assert script("upload_artifact")([*upload, *store]) == 0
    tarball = next((folder / "store").rglob("*.tar.gz"))
    registration = ["--register", "--registry", str(registry), "--artifact", tarball.as_uri()]
    assert script("package_dataset")([*package, *registration]) == 0
    return folder


def environment(published: Path, folder: Path) -> dict[str, str]:
    """Return a tiny run that stays below `folder`."""
    store = (folder / "uploads").as_uri()
    own = {
        "WANDB_DATASETS": DATASET,
        "WANDB_PROJECT": "tests",
        "WANDB_ENTITY": "tests",
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "STORE": store,
        "REGISTRY": str(published / "registry.yaml"),
        "DATA_ROOT": str(folder / "data"),
        "ARTIFACT_CACHE": str(folder / "artifacts"),
        "LATENT_CACHE": str(folder / "latents"),
        "RUNS": str(folder / "runs"),
        "ACCELERATOR": "cpu",
        "DEVICES": "1",
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "AUTOENCODER_FLAGS": f"{TINY} --model.init_args.latent_len 8 --model.init_args.latent_dim 8 "
        "--trainer.max_epochs 1",
        "TRAIN_FLAGS": f"{TINY} --trainer.max_epochs 40 --data.init_args.batch_size 4",
    }
    return {**os.environ, **own}


def start(variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            ["bash", str(ROOT / "scripts" / "run_remote_scale.sh")],
            env=variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(variables: dict[str, str], log: Path) -> str:
    """Run to the end; what it printed."""
    process = start(variables, log)
    assert process.wait(timeout=240) == 0, log.read_text()
    return log.read_text()


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Modification time and size of each file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@pytest.mark.slow
def test_a_killed_run_continues_and_a_finished_one_does_nothing(published: Path, tmp_path: Path) -> None:
    variables = environment(published, tmp_path)
    runs = tmp_path / "runs" / "burgers1d"
    newest = runs / "operator" / "checkpoints" / "last.ckpt"

    process = start(variables, tmp_path / "first.log")
    deadline = time.monotonic() + 240
    while not newest.exists():
        assert process.poll() is None, (tmp_path / "first.log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "first.log").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (runs / "operator" / "done").exists()
    before = contents(tmp_path / "latents") | contents(runs / "autoencoder")

    printed = finish(variables, tmp_path / "second.log")
    assert f"{runs}/autoencoder is finished, skipped" in printed
    assert "--ckpt_path last" in printed
    assert contents(tmp_path / "latents") | contents(runs / "autoencoder") == before
    # The log of the continued training begins behind the steps of the first one.
    logs = sorted((runs / "operator").rglob("metrics.csv"), key=lambda path: path.stat().st_mtime_ns)
    assert len(logs) == 2
    header, first, *_ = logs[-1].read_text().splitlines()
    assert int(first.split(",")[header.split(",").index("step")]) > 0

    metrics = json.loads((runs / "evaluation" / "metrics.json").read_text())
    assert metrics
    uploaded = {path.parent.parent.name for path in (tmp_path / "uploads").rglob("artifact.json")}
    assert uploaded == {"burgers1d-autoencoder", "burgers1d-operator", "burgers1d-evaluation"}

    before = contents(runs) | contents(tmp_path / "uploads") | contents(tmp_path / "latents")
    printed = finish(variables, tmp_path / "third.log")
    assert contents(runs) | contents(tmp_path / "uploads") | contents(tmp_path / "latents") == before
    assert "train.py" not in printed

    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_other_settings_are_refused(published: Path, tmp_path: Path) -> None:
    variables = environment(published, tmp_path) | {"STAGES": "fetch autoencoder"}
    finish(variables, tmp_path / "first.log")
    changed = variables | {"AUTOENCODER_FLAGS": variables["AUTOENCODER_FLAGS"] + " --seed_everything 7"}
    process = start(changed, tmp_path / "second.log")
    assert process.wait(timeout=120) == 1
    printed = (tmp_path / "second.log").read_text()
    assert "trained with other settings" in printed.splitlines()[-1]
    assert "--seed_everything 7" in printed


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WANDB_DATASETS": " "}, "WANDB_DATASETS is empty"),
        ({"STAGES": "fetch train"}, "no stage 'train'"),
        ({"NNODES": "2"}, "set DEVICES"),
        ({"NNODES": "2", "DEVICES": "1"}, "MASTER_ADDR and MASTER_PORT"),
        ({"TRAIN_FLAGS": "--model.init_args.widht 3"}, "widht"),
        ({"WANDB_DATASETS": "unknown_v1"}, "unknown_v1"),
    ],
)
def test_mistakes_end_before_any_work(
    variables: dict[str, str], message: str, published: Path, tmp_path: Path
) -> None:
    default = environment(published, tmp_path)
    process = start({**default, "DEVICES": "auto", **variables}, tmp_path / "log")
    assert process.wait(timeout=60) != 0
    assert message in (tmp_path / "log").read_text()
    assert not (tmp_path / "data").exists()
