"""`scripts/train.py`: what can be told without torch and Lightning, whose import takes seconds."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from gust_torch.tasks.signals import Signals
from solvers.common.urls import redact

SUBCOMMANDS = ("fit", "validate")
USAGE_ERROR = 2
HELP = """\
usage: train.py fit|validate --config FILE [--config FILE ...] [--FLAG VALUE ...]

Train a VQ-VAE, or any task that a configuration names.

  fit       train a model, or continue a training
  validate  compute the validation metrics of a checkpoint, given by --ckpt_path

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

    Raises:
        SystemExit: With 1 after a mistake, 2 after a mistyped flag, 143 or 130 where a signal stopped it.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    command = next((word for word in arguments if not word.startswith("-")), arguments[0])
    if command not in SUBCOMMANDS:
        fail(f"there is no {command!r}; give one of {', '.join(SUBCOMMANDS)} (see --help)", USAGE_ERROR)
    is_question = any(word.startswith(("-h", "--help", "--print_config")) for word in arguments)
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
    path = given.get("--data.data_path", given.get("--data.init_args.data_path"))
    if path is None:
        section = next((found for config in reversed(configs) if (found := _section(config, "data"))), {})
        path = section.get("data_path", (section.get("init_args") or {}).get("data_path"))
    is_plain = isinstance(path, str) and not _is_inline(path) and not re.search(r"[*?\[]|::|://", path)
    if is_plain and not Path(str(path)).exists():
        return f"--data.data_path {path}: no such file; check the path, or make the data first"
    checkpoint = given.get("--ckpt_path", "null")
    is_named = checkpoint in ("last", "best", "hpc", "null") or "://" in checkpoint
    if not is_named and not Path(checkpoint).is_file():
        return f"--ckpt_path {checkpoint}: no checkpoint there; check the path, or give last"
    return None


def flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag, value) of `--flag value` and `--flag=value`; what follows a flag counts as its value."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("-"):
            flag, separator, value = argument.partition("=")
            yield flag, value if separator else after


def names_class(arguments: Sequence[str], key: str) -> bool:
    """Whether the arguments, or a config file among them that can be read, name a class for `key`."""
    return any(
        flag == f"--{key}.class_path"
        or (flag == f"--{key}" and _is_class_name(value))
        or (flag in ("--config", "-c") and "class_path" in _section(value, key))
        for flag, value in flags(arguments)
    )


def _is_class_name(value: str) -> bool:
    """`package.Class`, not a file of settings or settings in braces."""
    return not Path(value).is_file() and all(part.isidentifier() for part in value.split("."))


def _is_inline(value: str) -> bool:
    """Whether a value is YAML in place of a file's name."""
    return value.lstrip().startswith(("{", "[")) or "\n" in value


def _section(path: str, key: str) -> dict[str, Any]:
    """Part of a config file; empty where there is none, since the parser says what is wrong with a file."""
    try:
        file = Path(path)  # a pipe, `--config <(...)`, can be read once only: by the parser
        return dict(yaml.safe_load(file.read_text())[key]) if file.is_file() else {}
    except (yaml.YAMLError, ValueError, OSError, RecursionError, LookupError, TypeError):
        return {}
