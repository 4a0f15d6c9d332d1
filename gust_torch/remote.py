"""From registered datasets to uploaded checkpoints and metrics, on any machine.

    WANDB_PROJECT=universal-simulator WANDB_ENTITY=your-entity WANDB_DATASETS="burgers1d_subset_v1" \\
        bash scripts/run_remote_scale.sh

The same command continues after a kill: finished stages are skipped, an unfinished training goes on at its
last checkpoint. Settings are environment variables:

    WANDB_DATASETS      names in the registry, separated by blanks (required)
    WANDB_PROJECT       W&B project, and
    WANDB_ENTITY        W&B entity: of short artifact references, of training logs, and of uploads to W&B
    STORE               where checkpoints and metrics go: wandb (default), file:///folder, s3://bucket/folder
    LOGGER              wandb or csv; by default wandb where STORE is wandb
    STAGES              "fetch autoencoder cache operator evaluate upload" (default), or some of them
    TRAIN_CONFIG        of the latent operator; default configs/latent/TASK.yaml, or grid.yaml without one
    AUTOENCODER_CONFIG  default configs/autoencoder/TASK.yaml, or grid.yaml
    FETCH_FLAGS         of scripts/fetch_datasets.py, such as --overwrite where other files are in the way
    TRAIN_FLAGS         flags for the operator's training, such as those of configs/scale_overrides.md
    AUTOENCODER_FLAGS   the same for the autoencoder's
    CACHE_FLAGS         flags for scripts/precompute_latent_cache.py
    EVALUATE_FLAGS      flags for scripts/evaluate.py
    ACCELERATOR         auto (default), gpu, cpu
    DEVICES             devices of a node: auto (default) or a number
    NNODES              nodes (default 1); with more, all must see the same files, see docs/remote.md
    NODE_RANK, MASTER_ADDR, MASTER_PORT   of this node, where NNODES > 1 outside SLURM
    REGISTRY            default $GUST_REGISTRY, else dataset_registry.yaml in DATA_ROOT and in docs
    DATA_ROOT           where datasets are unpacked; default data/pdebench
    ARTIFACT_CACHE      where downloads are kept; default artifacts/cache
    LATENT_CACHE        default data/latent_cache
    RUNS                checkpoints, logs and results; default runs/remote
    PYTHON              default .venv/bin/python where it exists, else python3

Credentials come from WANDB_API_KEY or `wandb login`, and from AWS_* variables; they are neither written nor
printed.
"""

import functools
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from gust_torch.artifacts.registry import find_entries
from gust_torch.stages import checkpoint_of, print_settings, run, say, training_falls_short, wanted_end
from solvers.common.cli import run_command
from solvers.common.files import WriterLock, file_sha256
from solvers.common.splits import SPLITS, find_splits
from solvers.common.stage import Stage, read_record

STAGES = ("fetch", "autoencoder", "cache", "operator", "evaluate", "upload")
TRAININGS = ("autoencoder", "operator")
TRAIN = "scripts/train.py"
LOCK_SECONDS = 10.0
CHECKS_AT_ONCE = 2
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Settings:
    """The environment variables of the module's documentation, in small letters."""

    wandb_datasets: tuple[str, ...] = ()
    store: str = "wandb"
    logger: str = ""
    stages: tuple[str, ...] = STAGES
    train_config: str = ""
    autoencoder_config: str = ""
    fetch_flags: tuple[str, ...] = ()
    train_flags: tuple[str, ...] = ()
    autoencoder_flags: tuple[str, ...] = ()
    cache_flags: tuple[str, ...] = ()
    evaluate_flags: tuple[str, ...] = ()
    accelerator: str = "auto"
    devices: str = "auto"
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = ""
    master_port: str = ""
    slurm_job_id: str = ""
    registry: str = ""
    data_root: Path = Path("data/pdebench")
    artifact_cache: Path = Path("artifacts/cache")
    latent_cache: Path = Path("data/latent_cache")
    runs: Path = Path("runs/remote")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read them, an empty variable as one that is not set; a ValueError names one that makes no sense."""
        given: dict[str, Any] = {}
        for setting in fields(cls):
            text = environment.get(setting.name.upper(), "").strip()
            kind: Any = type(setting.default)
            if text and kind is int and not text.isdecimal():
                raise ValueError(f"{setting.name.upper()}: expected a number, got {text!r}")
            if text:
                given[setting.name] = kind(text.split() if kind is tuple else text)
        return cls(**given)

    def __post_init__(self) -> None:
        if not self.wandb_datasets:
            raise ValueError("WANDB_DATASETS is empty; set it to names such as burgers1d_subset_v1")
        if unknown := set(self.stages) - set(STAGES):
            raise ValueError(f"no stage {min(unknown)!r}; STAGES takes {' '.join(STAGES)}")
        has_master = self.slurm_job_id or (self.master_addr and self.master_port)
        if self.nnodes != 1 and (self.devices == "auto" or not has_master):
            needed = "DEVICES (of a node) and, outside SLURM, MASTER_ADDR and MASTER_PORT (of node 0)"
            raise ValueError(f"NNODES is {self.nnodes}: set {needed}")

    @property
    def is_first(self) -> bool:
        """Whether this node does what is not training."""
        return self.node_rank == 0

    @property
    def failed(self) -> Path:
        """Mark of a failure of node 0, by which the others stop waiting."""
        return self.runs / "failed"

    @property
    def started(self) -> Path:
        """Mark of the start of another node; the file system's clock is the same for all."""
        return self.runs / f"node{self.node_rank}"


@dataclass(frozen=True)
class Dataset:
    """One dataset on its way through the stages; `kind` is grid, mesh or particles."""

    settings: Settings
    task: str
    kind: str
    sha256: str

    @property
    def trainings(self) -> tuple[str, ...]:
        """Those that it takes part in: a mesh is steady, there is no time for an operator to step in."""
        return TRAININGS[:1] if self.kind == "mesh" else TRAININGS

    def folder(self, stage: str) -> Path:
        """Where a stage leaves its files."""
        return self.settings.runs / self.task / stage

    def last(self, stage: str) -> Path:
        """Return the checkpoint from which a training goes on."""
        return self.folder(stage) / "checkpoints" / "last.ckpt"

    def training(self, stage: str) -> tuple[Path, tuple[str, ...]]:
        """Find a training's configuration (the given one, the task's own, that of its kind) and its flags."""
        settings = self.settings
        given, flags, folder = settings.train_config, settings.train_flags, Path("configs/latent")
        if stage == "autoencoder":
            given, flags = settings.autoencoder_config, settings.autoencoder_flags
            folder = Path("configs/autoencoder")
        own = folder / f"{self.task}.yaml"
        path = Path(given) if given else own if own.exists() else folder / f"{self.kind}.yaml"
        if not path.is_file():
            raise ValueError(f"no {path}; write it, or set TRAIN_CONFIG or AUTOENCODER_CONFIG")
        return path, flags

    def end(self, stage: str) -> dict[str, Any]:
        """Ask a training where it would end, so that it tries its settings too."""
        config, flags = self.training(stage)
        return _end_of((TRAIN, "fit", "--config", str(config), *flags))

    def autoencoder(self) -> None:
        """Train the autoencoder."""
        paths = find_splits(self.settings.data_root, self.task)
        data = ["--data.data_path", str(paths.get("train"))]
        if self.kind != "grid":
            given = {f"--data.init_args.{split}_path": str(paths.get(split, "null")) for split in SPLITS}
            data = [word for item in given.items() for word in item]
        self._train("autoencoder", {"dataset": self.sha256}, data)

    def cache(self) -> None:
        """Encode all splits."""
        settings = self.settings
        run(
            "scripts/precompute_latent_cache.py", "--tasks", self.task,
            "--splits", *find_splits(settings.data_root, self.task), "--root", settings.data_root,
            "--cache-dir", settings.latent_cache, "--config", self.training("autoencoder")[0],
            "--checkpoint", checkpoint_of(self.folder("autoencoder")),
            "--accelerator", settings.accelerator, "--devices", settings.devices, *settings.cache_flags,
        )  # fmt: skip

    def operator(self) -> None:
        """Train the latent operator."""
        settings = self.settings
        if "operator" not in self.trainings:
            say(f"{self.task} is steady: no operator to train")
            return
        for split in ("train", "val"):
            path = settings.latent_cache / f"{self.task}_{split}" / "index.json"
            remedy = f"{settings.data_root} needs a split {split!r}, and STAGES the stage cache"
            wait_for(path, settings, remedy)
        encoder = file_sha256(checkpoint_of(self.folder("autoencoder")))
        data = ["--data.init_args.task", self.task, "--data.init_args.root", str(settings.data_root)]
        data += ["--training.latent_cache_dir", str(settings.latent_cache)]
        self._train("operator", {"dataset": self.sha256, "autoencoder": encoder}, data)

    def evaluate(self) -> None:
        """Roll the operator out on the test split, or on val where there is none."""
        if "operator" not in self.trainings:
            return
        settings, model = self.settings, checkpoint_of(self.folder("operator"))
        paths = find_splits(settings.data_root, self.task)
        path = paths.get("test") or paths.get("val")
        if path is None:
            raise ValueError(f"{settings.data_root} holds neither a test nor a val split of {self.task}")
        request = {"dataset": self.sha256, "data": str(path), "operator": file_sha256(model)}
        request["flags"] = " ".join(settings.evaluate_flags)
        with Stage(self.folder("evaluation"), request) as stage:
            if stage.is_done:
                say(f"{stage.folder} is finished, skipped")
                return
            stage.begin(overwrite=True)
            run(
                "scripts/evaluate.py", "--checkpoint", model, "--data_path", path,
                "--output_dir", stage.folder, "--accelerator", settings.accelerator, *settings.evaluate_flags,
            )  # fmt: skip
            if not (stage.folder / "metrics.json").is_file():
                raise ValueError(f"{stage.folder} holds no metrics.json; the same command evaluates again")
            stage.finish()

    def upload(self) -> None:
        """Send checkpoints and metrics; what is there already is not sent again."""
        settings = self.settings
        for stage in (*TRAININGS, "evaluation"):
            folder = self.folder(stage)
            if not (read_record(folder) or {"done": False})["done"]:
                continue
            is_model = stage != "evaluation"
            run(
                "scripts/upload_artifact.py", f"{self.task}-{stage}", "model" if is_model else "metrics",
                checkpoint_of(folder) if is_model else folder / "metrics.json",
                "--store", settings.store, "--cache-dir", settings.artifact_cache,
                "--metadata", json.dumps({"task": self.task, "dataset_sha256": self.sha256}),
            )  # fmt: skip

    def _train(self, name: str, inputs: dict[str, str], data: list[str]) -> None:
        """Begin, continue or skip a training; neither continue nor replace one of other settings or data."""
        settings, last = self.settings, self.last(name)
        config, given = self.training(name)
        flags = [*data, *given]
        request = {**inputs, "flags": flags, "config": yaml.safe_load(config.read_text())}
        with Stage(self.folder(name), request) as stage:
            if stage.is_done:
                say(f"{stage.folder} is finished, skipped")
                return
            if last.exists() and (changes := stage.changes()):
                say("\n".join(changes), f"now: {' '.join(flags)}")
                other = "trained with other settings or data, see above"
                raise ValueError(f"{stage.folder} was {other}; set RUNS to another folder or delete it")
            if settings.is_first:
                stage.begin(overwrite=not last.exists())
                stage.record(end=stage.progress.get("end") or self.end(name))
            logger = settings.logger or ("wandb" if settings.store == "wandb" else "csv")
            launcher, start = _launcher(settings)
            run(
                *start, TRAIN, "fit", "--config", config, *flags, "--trainer.default_root_dir", stage.folder,
                "--trainer.accelerator", settings.accelerator, "--trainer.devices", settings.devices,
                "--trainer.num_nodes", settings.nnodes,
                *(["--trainer.logger", "WandbLogger"] if logger == "wandb" else []),
                *(["--ckpt_path", "last"] if last.exists() else []), launcher=launcher,
            )  # fmt: skip
            if settings.is_first:
                if missing := training_falls_short(last, stage.progress["end"]):
                    raise ValueError(f"{last}: {missing}; the same command continues the training")
                stage.finish()


@functools.cache
def _end_of(command: tuple[str, ...]) -> dict[str, Any]:
    return wanted_end(print_settings(*command))


def _launcher(settings: Settings) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Words before and after `python` that start a training on all nodes; on one, Lightning does."""
    if settings.nnodes == 1:
        return (), ()
    if settings.slurm_job_id:
        return ("srun", "--nodes", settings.nnodes, "--ntasks-per-node", settings.devices), ()
    return (), (
        "-m", "torch.distributed.run", "--nnodes", settings.nnodes, "--node_rank", settings.node_rank,
        "--nproc_per_node", settings.devices, "--master_addr", settings.master_addr,
        "--master_port", settings.master_port,
    )  # fmt: skip


def wait_for(path: Path, settings: Settings, remedy: str = "") -> None:
    """Let other nodes than the first wait for what it makes.

    Raises:
        ValueError: It failed; or this is the first node, for which nobody makes it.
    """
    if path.exists():
        return
    if settings.is_first:
        raise ValueError(f"no {path}; {remedy}")
    say(f"waiting for node 0 to make {path}")
    while not path.exists():
        if settings.failed.exists() and settings.failed.stat().st_mtime > settings.started.stat().st_mtime:
            raise ValueError("node 0 failed, see its output")
        time.sleep(POLL_SECONDS)


def fetch(settings: Settings) -> None:
    """Fetch all datasets."""
    run(
        "scripts/fetch_datasets.py", *settings.wandb_datasets, "--root", settings.data_root,
        "--cache", settings.artifact_cache,
        *(["--registry", settings.registry] if settings.registry else []), *settings.fetch_flags,
    )  # fmt: skip


def find_datasets(settings: Settings) -> list[Dataset]:
    """Look the datasets up in the registry; a ValueError where one is not there or two hold the same task."""
    registry = Path(settings.registry) if settings.registry else None
    entries = find_entries(settings.wandb_datasets, registry=registry, root=settings.data_root)
    task, count = Counter(entry.task for entry in entries).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} datasets hold {task}; run them one by one with other RUNS and DATA_ROOT")
    return [Dataset(settings, entry.task, entry.kind, entry.sha256) for entry in entries]


def work(settings: Settings) -> None:
    """Run the stages of all datasets; other nodes than the first take part in the trainings."""
    datasets = find_datasets(settings)
    settings.runs.mkdir(parents=True, exist_ok=True)
    trainings = [stage for stage in settings.stages if stage in TRAININGS]
    if not settings.is_first:
        settings.started.touch()
        for name in settings.wandb_datasets if trainings else ():
            wait_for(settings.data_root / ".gust" / f"{name}.json", settings)
        run_stages(datasets, trainings)
        return
    try:
        lock = WriterLock(settings.runs / "run", timeout=LOCK_SECONDS)
    except BlockingIOError:
        holder = f"another run, or a training that it left behind (fuser {settings.runs}/.run.lock)"
        raise ValueError(f"{holder}, uses {settings.runs}; wait for it or end it") from None
    lock.inherit()
    with lock:
        try:
            # Settings of trainings to begin are tried before anything takes long.
            pairs = [(each, stage) for each in datasets for stage in each.trainings if stage in trainings]
            new = [(each, stage) for each, stage in pairs if not each.last(stage).exists()]
            with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
                list(pool.map(lambda pair: pair[0].end(pair[1]), new))
            if "fetch" in settings.stages:
                fetch(settings)
            run_stages(datasets, [stage for stage in settings.stages if stage != "fetch"])
        except BaseException:
            settings.failed.touch()
            raise
        settings.failed.unlink(missing_ok=True)


def run_stages(datasets: list[Dataset], stages: list[str]) -> None:
    """Run the methods of these names, one dataset behind the other."""
    for dataset, stage in itertools.product(datasets, stages):
        getattr(dataset, stage)()


def main(argv: list[str] | None = None) -> int:
    """Run what the environment asks for; return the exit code."""
    if (sys.argv[1:] if argv is None else argv) and __doc__:
        print(__doc__)
        return 0
    return run_command(lambda: work(Settings.from_environment()))


if __name__ == "__main__":
    sys.exit(main())
