"""`gust-torch COMMAND`: every command of the project behind one name, for those who installed the package."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

FORMAT = "solvers.common.hdf5_utils:main"
# Name -> what it does, and the function that takes the arguments and returns the exit code.
COMMANDS = {
    "simulate turbulence": ("forced 2D turbulence", "solvers.py2d_turbulence.run_solver:main"),
    "simulate convection": (
        "Rayleigh-Bénard convection (extra: rbc)",
        "solvers.rayleigh_benard.run_solver:main",
    ),
    "study-data": ("flows to compare tokenizers on", "gust_torch.study_data:main"),
    "train": ("train a VQ-VAE, or the task of a --config", "gust_torch.cli:train"),
    "tokenize": (
        "write the tokens of a file; `tokenize info` looks only",
        "gust_torch.tokenizer.__main__:main",
    ),
    "analyze": ("spectra and errors of what tokens decode to", "gust_torch.analysis.command:main"),
    "convert": ("PDEBench grids, meshes and particles to our formats", "gust_torch.convert.commands:main"),
    "precompute": ("fill a cache with an autoencoder's latents", "gust_torch.precompute.command:main"),
    "evaluate": ("errors of a latent operator's rollouts", "gust_torch.evaluation.command:main"),
    "package": ("pack a data set into a tarball", "gust_torch.artifacts.package:main"),
    "upload": ("upload a file to W&B, S3 or a folder", "gust_torch.artifacts.upload:main"),
    "fetch": ("fetch packaged data sets, verified", "gust_torch.artifacts.fetch:main"),
    "info": ("what an HDF5 file holds", FORMAT),
    "validate": ("every violation of the HDF5 format", FORMAT),
    "repack": ("rewrite an HDF5 file for fast random reads", FORMAT),
}
# Sub-commands that a command's own program has; the first is meant where none is given.
WORDS = {"train": ("fit", "validate"), "tokenize": ("save", "info", "export")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit code, 2 where there is none of that name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    count = 2 if given[0] == "simulate" else 1
    name, rest = " ".join(given[:count]), given[count:]
    if name in COMMANDS:
        from solvers.common import cli

        cli.program = f"gust-torch {name}"
        if name in WORDS and (not rest or rest[0] not in WORDS[name]):
            rest = [WORDS[name][0], *rest]
        if COMMANDS[name][1] == FORMAT:
            rest = [name, *rest]
        module, _, function = COMMANDS[name][1].partition(":")
        return getattr(importlib.import_module(module), function)(rest) or 0
    if name in ("simulate -h", "simulate --help"):
        print("usage: gust-torch simulate {turbulence,convection} [FLAGS]; each has its own --help")
        return 0
    if given[0] == "simulate":
        print("error: expected gust-torch simulate turbulence or convection", file=sys.stderr)
    else:
        print(f"error: no command {name!r}; `gust-torch --help` lists them", file=sys.stderr)
    return 2


def overview() -> str:
    """Describe all commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {help}" for name, (help, _) in COMMANDS.items())
    return (
        "usage: gust-torch COMMAND [FLAGS]\n\n"
        "From a fluid simulation to discrete tokens that keep the physics.\n\n"
        f"{lines}\n\ngust-torch COMMAND --help lists the flags of a command."
    )


def train(arguments: Sequence[str]) -> int:
    """Train as `scripts/train.py` does; a `--config` that is no file here may name one of the package's own.

    `--config vqvae/turbulence.yaml` and `--config configs/vqvae/turbulence.yaml` are the same then.
    """
    from gust_torch.tasks.cli import main as fit

    given = list(arguments)
    for i, argument in enumerate(given):
        flag, separator, value = argument.partition("=")
        if flag in ("--config", "-c") and separator:
            given[i] = f"{flag}={shipped(value)}"
        elif flag in ("--config", "-c") and i + 1 < len(given):
            given[i + 1] = shipped(given[i + 1])
    # Lightning starts the processes of further devices with the program's own command line, which stays.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    return fit(given)


def shipped(config: str) -> str:
    """Find a configuration that came with the package, unless there is a file of that name."""
    found = Path(__file__).parent / "configs" / config.removeprefix("configs/")
    return str(found) if not Path(config).exists() and found.is_file() else config
