"""`gust-torch COMMAND`: every command of the project behind one name, for those who installed the package."""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Attributes:
        help: What it does, in a line.
        function: "module:function" that takes the arguments and returns the exit code.
        inserted: Arguments put in front of the user's, unless those begin with one of `words`.
        words: What may stand there instead of `inserted`.
    """

    help: str
    function: str
    inserted: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def run(self, name: str, arguments: Sequence[str]) -> int:
        """Import the function and call it under the command's name; nothing is imported before."""
        from solvers.common import cli

        cli.program = f"gust-torch {name}"
        module, _, function = self.function.partition(":")
        main: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), function)
        is_spelled_out = bool(arguments) and arguments[0] in self.words
        return main([*(() if is_spelled_out else self.inserted), *arguments]) or 0


FORMAT = "solvers.common.hdf5.commands:main"
COMMANDS = {
    "simulate turbulence": Command("forced 2D turbulence", "solvers.py2d_turbulence.run_solver:main"),
    "simulate convection": Command(
        "Rayleigh-Bénard convection (extra: rbc)", "solvers.rayleigh_benard.run_solver:main"
    ),
    "study-data": Command("flows to compare tokenizers on", "gust_torch.study_data:main"),
    "train": Command(
        "train a VQ-VAE, or the task of a --config", "gust_torch.cli:train", ("fit",), ("fit", "validate")
    ),
    "tokenize": Command(
        "write the tokens of a file; `tokenize info` looks only",
        "gust_torch.tokenizer.__main__:main",
        ("save",),
        ("save", "info", "export"),
    ),
    "analyze": Command("spectra and errors of what tokens decode to", "gust_torch.analysis.command:main"),
    "convert": Command(
        "PDEBench grids, meshes and particles to our formats", "gust_torch.convert.commands:main"
    ),
    "precompute": Command("fill a cache with an autoencoder's latents", "gust_torch.precompute.command:main"),
    "evaluate": Command("errors of a latent operator's rollouts", "gust_torch.evaluation.command:main"),
    "package": Command("pack a data set into a tarball", "gust_torch.artifacts.package:main"),
    "upload": Command("upload a file to W&B, S3 or a folder", "gust_torch.artifacts.upload:main"),
    "fetch": Command("fetch packaged data sets, verified", "gust_torch.artifacts.fetch:main"),
    "info": Command("what an HDF5 file holds", FORMAT, ("info",)),
    "validate": Command("every violation of the HDF5 format", FORMAT, ("validate",)),
    "repack": Command("rewrite an HDF5 file for fast random reads", FORMAT, ("repack",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit code, 2 where there is none of that name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    for length in (2, 1):
        name = " ".join(given[:length])
        if name in COMMANDS:
            return COMMANDS[name].run(name, given[length:])
    if given[0] == "simulate":
        flows = [name.split()[1] for name in COMMANDS if name.startswith("simulate ")]
        if given[1:] in (["-h"], ["--help"]):
            print(f"usage: gust-torch simulate {{{','.join(flows)}}} [FLAGS]; each has its own --help")
            return 0
        print(f"error: expected gust-torch simulate {' or '.join(flows)}", file=sys.stderr)
        return 2
    print(f"error: no command {given[0]!r}; `gust-torch --help` lists them", file=sys.stderr)
    return 2


def overview() -> str:
    """Describe all commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: gust-torch COMMAND [FLAGS]",
            "",
            "From a fluid simulation to discrete tokens that keep the physics.",
            "",
            *lines,
            "",
            "gust-torch COMMAND --help lists the flags of a command.",
        ]
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
    if Path(config).exists():
        return config
    found = Path(__file__).parent / "configs" / config.removeprefix("configs/")
    return str(found) if found.is_file() else config
