"""The command line of `scripts/precompute_latent_cache.py`; imports neither torch nor Lightning."""

import argparse
from pathlib import Path

from gust_torch.precompute.options import DTYPES, SPLITS, Compute, Request
from solvers.common.cli import run_command


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; mistakes become one line and exit code 1."""
    parsed = build_parser().parse_args(arguments)
    return run_command(lambda: run(parsed))


def run(arguments: argparse.Namespace) -> None:
    """Make the caches and print a line for each."""
    request, compute = request_from(arguments), compute_from(arguments)
    # Here, since torch and Lightning take seconds to import, which --help need not wait for.
    from gust_torch.precompute.pipeline import precompute

    precompute(request, compute, report=lambda outcome: print(outcome.line(), flush=True))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with the defaults of `Request` and `Compute`."""
    parser = argparse.ArgumentParser(
        prog="precompute_latent_cache.py",
        allow_abbrev=False,
        description="Encodes converted data once and keeps the latents in CACHE_DIR/TASK_SPLIT/. "
        "Without --checkpoint or --untrained the autoencoder of each task is trained first.",
    )
    _add_data_arguments(parser)
    _add_encoder_arguments(parser)
    _add_compute_arguments(parser)
    return parser


def request_from(arguments: argparse.Namespace) -> Request:
    """Return what to encode."""
    return Request(
        tasks=tuple(arguments.tasks),
        splits=tuple(arguments.splits),
        root=arguments.root,
        cache_dir=arguments.cache_dir,
        latent_dim=arguments.latent_dim,
        latent_len=arguments.latent_len,
        checkpoint=arguments.checkpoint,
        config=arguments.config,
        untrained=arguments.untrained,
        seed=arguments.seed,
        limit=arguments.limit,
        dtype=arguments.dtype,
        overwrite=arguments.overwrite,
        manifest=arguments.manifest,
    )


def compute_from(arguments: argparse.Namespace) -> Compute:
    """How to encode."""
    return Compute(
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        pin_memory=arguments.pin_memory,
        devices=arguments.devices,
        accelerator=arguments.accelerator,
        strategy=arguments.strategy,
        num_nodes=arguments.num_nodes,
    )


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Which data, and where the caches go."""
    add = parser.add_argument
    add("--tasks", nargs="+", required=True, metavar="TASK", help="converted data sets, such as burgers1d")
    add("--splits", nargs="+", default=list(SPLITS), metavar="SPLIT", help="default: train val test")
    add("--root", type=Path, default=Request.root, help="folder of TASK_SPLIT.h5 or .zarr (%(default)s)")
    add("--cache-dir", type=Path, default=Request.cache_dir, help="folder of the caches (%(default)s)")
    add(
        "--limit",
        type=int,
        metavar="N",
        help="the first N samples of each split; whole trajectories of particles",
    )
    add("--dtype", choices=DTYPES, default=Request.dtype, help="of the stored latents (%(default)s)")
    add("--overwrite", action="store_true", help="replace stale caches and trainings")
    add("--manifest", type=Path, metavar="FILE", help="JSON file to write, with an entry for each cache")


def _add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Which encoder."""
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="trained autoencoder, of scripts/train.py")
    add("--untrained", action="store_true", help="random weights instead of a training")
    add(
        "--config", type=Path, metavar="FILE", help="training and data; default configs/autoencoder/TASK.yaml"
    )
    add("--latent-dim", type=int, metavar="D", help="features of a token; default: as the configuration says")
    add("--latent-len", type=int, metavar="L", help="tokens of a sample; default: as the configuration says")
    add("--seed", type=int, help="of --untrained (default 0) and of the training (the configuration's)")


def _add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """How to compute."""
    default = Compute()
    for name, kind, text in (
        ("batch_size", int, "samples in a batch, for each device"),
        ("num_workers", int, "reading processes for each device"),
        ("devices", str, "number of devices, or a list such as 0,2"),
        ("accelerator", str, "cpu, gpu, ..."),
        ("strategy", str, "Lightning strategy such as ddp"),
        ("num_nodes", int, "machines, each started by torchrun or SLURM"),
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(
            flag, type=kind, default=getattr(default, name), help=f"{text} (default %(default)s)"
        )
    parser.add_argument("--pin-memory", action="store_true", help="page-locked buffers, where there is a GPU")
