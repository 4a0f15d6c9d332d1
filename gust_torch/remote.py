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

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
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
        """Read them; an empty variable counts as one that is not set.

        Raises:
            ValueError: One has no valid value, or one that others need is missing.
        """
        given: dict[str, Any] = {}
        for setting in fields(cls):
            default: Any = setting.default
            text = environment.get(setting.name.upper(), "").strip()
            if not text:
                continue
            if isinstance(default, tuple):
                given[setting.name] = tuple(text.split())
            elif isinstance(default, int) and not text.isdecimal():
                raise ValueError(f"{setting.name.upper()}: expected a number, got {text!r}")
            else:
                given[setting.name] = type(default)(text)
        return cls(**given)

    def __post_init__(self) -> None:
        if not self.wandb_datasets:
            raise ValueError(
                "WANDB_DATASETS is empty; set it to names of the registry, such as burgers1d_subset_v1"
            )
        for stage in self.stages:
            if stage not in STAGES:
                raise ValueError(f"no stage '{stage}'; STAGES takes {' '.join(STAGES)}")
        if self.nnodes != 1 and self.devices == "auto":
            raise ValueError(f"NNODES is {self.nnodes}: set DEVICES to the number of devices of each node")
        if self.nnodes != 1 and not (self.slurm_job_id or (self.master_addr and self.master_port)):
            raise ValueError(
                f"NNODES is {self.nnodes}: set MASTER_ADDR and MASTER_PORT to where node 0 listens"
            )

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
    """One dataset on its way through the stages.

    Attributes:
        settings: of the run.
        task: such as "burgers1d".
        kind: "grid", "mesh" or "particles".
        sha256: of its tarball.
        ends: of the trainings that were checked.
    """

    settings: Settings
    task: str
    kind: str
    sha256: str
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def steady(self) -> bool:
        """Whether there is no time to step in, hence no operator."""
        return self.kind == "mesh"

    def folder(self, stage: str) -> Path:
        """Where a stage leaves its files."""
        return self.settings.runs / self.task / stage

    def config(self, stage: str) -> Path:
        """Find the configuration of a training: the given one, the task's own, or that of all its kind."""
        if stage == "autoencoder":
            given, folder = self.settings.autoencoder_config, Path("configs/autoencoder")
        else:
            given, folder = self.settings.train_config, Path("configs/latent")
        own = folder / f"{self.task}.yaml"
        path = Path(given) if given else own if own.exists() else folder / f"{self.kind}.yaml"
        if not path.is_file():
            raise ValueError(f"no {path}; write it, or set TRAIN_CONFIG or AUTOENCODER_CONFIG")
        return path

    def flags(self, stage: str) -> tuple[str, ...]:
        """Return the flags that the user gives to a training."""
        return self.settings.autoencoder_flags if stage == "autoencoder" else self.settings.train_flags

    def unchecked(self) -> list[str]:
        """Return the trainings that are still to begin."""
        stages = [stage for stage in ("autoencoder", "operator") if stage in self.settings.stages]
        return [
            stage
            for stage in stages
            if not (self.folder(stage) / "checkpoints" / "last.ckpt").exists()
            and not (stage == "operator" and self.steady)
        ]

    def check(self, stage: str) -> None:
        """Try the settings of a training: nothing else takes long before that."""
        self.ends[stage] = self._end(stage)

    def autoencoder(self) -> None:
        """Train the autoencoder."""
        paths = find_splits(self.settings.data_root, self.task)
        if self.kind == "grid":
            data = ["--data.data_path", str(paths["train"])]
        else:
            data = [
                text
                for split in SPLITS
                for text in (f"--data.init_args.{split}_path", str(paths.get(split, "null")))
            ]
        self._train("autoencoder", {"dataset": self.sha256}, data)

    def cache(self) -> None:
        """Encode all splits."""
        settings = self.settings
        run(
            "scripts/precompute_latent_cache.py", "--tasks", self.task,
            "--splits", *find_splits(settings.data_root, self.task), "--root", settings.data_root,
            "--cache-dir", settings.latent_cache, "--config", self.config("autoencoder"),
            "--checkpoint", checkpoint_of(self.folder("autoencoder")),
            "--accelerator", settings.accelerator, "--devices", settings.devices, *settings.cache_flags,
        )  # fmt: skip

    def operator(self) -> None:
        """Train the latent operator."""
        settings = self.settings
        if self.steady:
            say(f"{self.task} is steady: no operator to train")
            return
        for split in ("train", "val"):
            path = settings.latent_cache / f"{self.task}_{split}" / "index.json"
            wait_for(
                path, settings, f"{settings.data_root} needs a split {split!r}, and STAGES the stage cache"
            )
        inputs = {
            "dataset": self.sha256,
            "autoencoder": file_sha256(checkpoint_of(self.folder("autoencoder"))),
        }
        data = ["--data.init_args.task", self.task, "--data.init_args.root", str(settings.data_root)]
        data += ["--training.latent_cache_dir", str(settings.latent_cache)]
        self._train("operator", inputs, data)

    def evaluate(self) -> None:
        """Roll the operator out on the test split, or on val where there is none."""
        if self.steady:
            return
        settings, model = self.settings, checkpoint_of(self.folder("operator"))
        paths = find_splits(settings.data_root, self.task)
        path = paths.get("test") or paths.get("val")
        if path is None:
            raise ValueError(f"{settings.data_root} holds neither a test nor a val split of {self.task}")
        request = {
            "dataset": self.sha256, "data": str(path), "operator": file_sha256(model),
            "flags": " ".join(settings.evaluate_flags),
        }  # fmt: skip
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
        for stage in ("autoencoder", "operator", "evaluation"):
            folder = self.folder(stage)
            record = read_record(folder)
            if record is None or not record["done"]:
                continue
            kind, file = "model", checkpoint_of(folder)
            if stage == "evaluation":
                kind, file = "metrics", folder / "metrics.json"
            run(
                "scripts/upload_artifact.py", f"{self.task}-{stage}", kind, file,
                "--store", settings.store, "--cache-dir", settings.artifact_cache,
                "--metadata", json.dumps({"task": self.task, "dataset_sha256": self.sha256}),
            )  # fmt: skip

    def _train(self, name: str, inputs: dict[str, str], data: list[str]) -> None:
        """Begin, continue or skip a training.

        Raises:
            ValueError: Its checkpoints are of other settings or data, which are neither continued nor
                replaced; or it ended before its end.
        """
        settings, config = self.settings, self.config(name)
        flags = [*data, *self.flags(name)]
        request = {**inputs, "flags": flags, "config": yaml.safe_load(config.read_text())}
        with Stage(self.folder(name), request) as stage:
            if stage.is_done:
                say(f"{stage.folder} is finished, skipped")
                return
            last = stage.folder / "checkpoints" / "last.ckpt"
            if last.exists() and (changes := stage.changes()):
                say("\n".join(changes), f"now: {' '.join(flags)}")
                raise ValueError(
                    f"{stage.folder} was trained with other settings or data, see above; set RUNS to another "
                    "folder or delete it"
                )
            if settings.is_first:
                stage.begin(overwrite=not last.exists())
                end = stage.progress.get("end") or self.ends.get(name) or self._end(name)
                stage.record(end=end)
            more = ["--trainer.logger", "WandbLogger"] if self._logs_to_wandb else []
            more += ["--ckpt_path", "last"] if last.exists() else []
            self._launch(
                TRAIN, "fit", "--config", config, *flags, "--trainer.default_root_dir", stage.folder,
                "--trainer.accelerator", settings.accelerator, "--trainer.devices", settings.devices,
                "--trainer.num_nodes", settings.nnodes, *more,
            )  # fmt: skip
            if settings.is_first:
                if missing := training_falls_short(last, stage.progress["end"]):
                    raise ValueError(f"{last}: {missing}; the same command continues the training")
                stage.finish()

    def _end(self, stage: str) -> dict[str, Any]:
        """Ask a training where it would end, so that it tries its settings too."""
        command = (TRAIN, "fit", "--config", self.config(stage), *self.flags(stage))
        return wanted_end(print_settings(*command))

    @property
    def _logs_to_wandb(self) -> bool:
        settings = self.settings
        return (settings.logger or ("wandb" if settings.store == "wandb" else "csv")) == "wandb"

    def _launch(self, *command: object) -> None:
        """Run a training on all nodes. On one, Lightning starts a process for each device itself."""
        settings = self.settings
        if settings.nnodes == 1:
            run(*command)
        elif settings.slurm_job_id:
            run(
                *command, launcher=("srun", "--nodes", settings.nnodes, "--ntasks-per-node", settings.devices)
            )
        else:
            run(
                "-m", "torch.distributed.run", "--nnodes", settings.nnodes, "--node_rank", settings.node_rank,
                "--nproc_per_node", settings.devices, "--master_addr", settings.master_addr,
                "--master_port", settings.master_port, *command,
            )  # fmt: skip


def wait_for(path: Path, settings: Settings, remedy: str = "") -> None:
    """Let other nodes than the first wait for what it makes, unless it fails meanwhile.

    Raises:
        ValueError: It failed; or this is the first node, for which nobody makes it.
    """
    if settings.is_first and not path.exists():
        raise ValueError(f"no {path}; {remedy}")
    if not path.exists():
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
    """Look the datasets up in the registry.

    Raises:
        ValueError: One is not there, or two hold the same task.
    """
    registry = Path(settings.registry) if settings.registry else None
    entries = find_entries(settings.wandb_datasets, registry=registry, root=settings.data_root)
    tasks = [entry.task for entry in entries]
    if repeated := {task for task in tasks if tasks.count(task) > 1}:
        raise ValueError(
            f"several datasets hold {', '.join(sorted(repeated))}; run them one by one, each with its own "
            "RUNS and DATA_ROOT"
        )
    return [Dataset(settings, entry.task, entry.kind, entry.sha256) for entry in entries]


def work(settings: Settings) -> None:
    """Run the stages of all datasets."""
    datasets = find_datasets(settings)
    settings.runs.mkdir(parents=True, exist_ok=True)
    stages = [stage for stage in settings.stages if settings.is_first or stage in ("autoencoder", "operator")]
    with ExitStack() as stack:
        if settings.is_first:
            stack.enter_context(_alone(settings))
            stack.push(_mark(settings.failed))
            with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
                for check in [
                    pool.submit(each.check, stage) for each in datasets for stage in each.unchecked()
                ]:
                    check.result()
        if "fetch" in stages:
            fetch(settings)
        if not settings.is_first and stages:
            settings.started.touch()
            for name in settings.wandb_datasets:
                wait_for(settings.data_root / ".gust" / f"{name}.json", settings)
        for dataset in datasets:
            for stage in stages:
                if stage != "fetch":
                    getattr(dataset, stage)()


def _alone(settings: Settings) -> WriterLock:
    """Keep a second run away, and one beside a training that a killed run left behind."""
    try:
        lock = WriterLock(settings.runs / "run", timeout=LOCK_SECONDS)
    except BlockingIOError:
        raise ValueError(
            f"another run, or a training that it left behind, uses {settings.runs} "
            f"(fuser {settings.runs}/.run.lock)"
        ) from None
    lock.inherit()
    return lock


def _mark(path: Path) -> Callable[..., None]:
    """Leave a mark after a failure, and none after a success."""

    def mark(kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            path.unlink(missing_ok=True)
        else:
            path.touch()

    return mark


def main(argv: list[str] | None = None) -> int:
    """Run what the environment asks for; return the exit code."""
    if (sys.argv[1:] if argv is None else argv) and __doc__:
        print(__doc__)
        return 0
    return run_command(lambda: work(Settings.from_environment()))


if __name__ == "__main__":
    sys.exit(main())
