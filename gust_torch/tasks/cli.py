"""`scripts/train.py`: what can be told without torch and Lightning, whose import takes seconds."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from gust_torch.tasks.signals import Signals
from solvers.common.urls import redact

SUBCOMMANDS = {
    "fit": "train a model, or continue a training",
    "validate": "compute the validation metrics of a checkpoint, given by --ckpt_path",
}
USAGE_ERROR = 2
HELP = """\
usage: train.py fit|validate --config FILE [--config FILE ...] [--FLAG VALUE ...]

Train a VQ-VAE, or any task that a configuration names.

{subcommands}

  train.py fit --config configs/vqvae/turbulence.yaml --data.data_path FILE --trainer.max_epochs 5
  train.py fit --config configs/autoencoder/burgers1d.yaml
  train.py fit --config configs/latent/burgers1d.yaml
  train.py fit ... --ckpt_path last          continue where a training stopped, exactly

`train.py fit --help` lists every flag with its default; those of another task:
`train.py fit --model gust_torch.LatentAutoencoderTask --print_config`. Checkpoints, logs and figures land
under --trainer.default_root_dir (runs).
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run `fit` or `validate`; mistakes of the user end with one line on standard error.

    The task is `VQVAETask` and the data `FieldDataModule`, whose arguments are flags themselves
    (`--model.base_channels`), unless a config file or a flag names a class for one of them (`class_path`,
    `--model package.Class`): then any task or data module will do, as in LightningCLI's subclass mode.

    Args:
        args: Command line without the program's name; that of the process by default.

    Returns:
        0.

    Raises:
        SystemExit: With 1 after a mistake, 2 after a mistyped flag, 143 or 130 where a signal stopped it.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:10s}{what}" for name, what in SUBCOMMANDS.items())
        print(HELP.format(subcommands=listed), end="")
        return 0
    if (command := next((a for a in arguments if not a.startswith("-")), arguments[0])) not in SUBCOMMANDS:
        fail(f"there is no {command!r}; give one of {', '.join(SUBCOMMANDS)} (see --help)", USAGE_ERROR)
    is_question = any(a.startswith(("-h", "--help", "--print_config")) for a in arguments)
    if not is_question and (problem := missing_file(arguments)):
        fail(problem)
    with Signals() as signals:
        from gust_torch.tasks.training import run

        run(arguments, signals, is_whole_command=args is None)
    return 0


def fail(line: str, code: int = 1) -> None:
    """End the program with a line on standard error."""
    print(f"error: {redact(line)}", file=sys.stderr)
    sys.exit(code)


def missing_file(arguments: Sequence[str]) -> str | None:
    """Name the first file that the arguments, or config files among them, give and that is not there."""
    given = dict(flags(arguments))
    configs = [value for flag, value in flags(arguments) if flag in ("--config", "-c")]
    for config in configs:
        if not Path(config).exists() and not _is_inline(config):
            return f"--config {config}: no such file; check the path"
    data_flags = ("--data.data_path", "--data.init_args.data_path")
    path = next((given[flag] for flag in data_flags if flag in given), None)
    if path is None:
        section = next(
            (found for config in reversed(configs) if (found := _section(Path(config), "data"))), {}
        )
        path = section.get("data_path", (section.get("init_args") or {}).get("data_path"))
    is_plain = isinstance(path, str) and not _is_inline(path) and not re.search(r"[*?\[]|::|://", path)
    if is_plain and not Path(str(path)).exists():
        return f"--data.data_path {path}: no such file; check the path, or make the data first"
    checkpoint = given.get("--ckpt_path")
    is_named = checkpoint in (None, "last", "best", "hpc", "null")
    if not is_named and "://" not in str(checkpoint) and not Path(str(checkpoint)).is_file():
        return f"--ckpt_path {checkpoint}: no checkpoint there; check the path, or give last"
    return None


def flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag, value) of `--flag value` and `--flag=value`; what follows a flag counts as its value."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("-"):
            flag, separator, value = argument.partition("=")
            yield flag, value if separator else after


def names_class(arguments: Sequence[str], key: str) -> bool:
    """Whether a config file among the arguments, or one of the arguments, names a class for `key`.

    Files that cannot be read count as without: the parser says what is wrong with them.
    """
    return any(
        flag == f"--{key}.class_path"
        or (flag == f"--{key}" and _is_class_name(value))
        or (flag in ("--config", "-c") and "class_path" in _section(Path(value), key))
        for flag, value in flags(arguments)
    )


def _is_class_name(value: str) -> bool:
    """`package.Class`, not a file of settings or settings in braces."""
    return not Path(value).is_file() and all(part.isidentifier() for part in value.split("."))


def _is_inline(value: str) -> bool:
    """Whether a value is YAML in place of a file's name."""
    return value.lstrip().startswith(("{", "[")) or "\n" in value


def _section(path: Path, key: str) -> dict[str, Any]:
    """Part of a config file; empty where there is none."""
    try:
        config = yaml.safe_load(path.read_text()) if os.path.isfile(path) else None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError):
        return {}
    section = config.get(key) if isinstance(config, dict) else None
    return section if isinstance(section, dict) else {}
