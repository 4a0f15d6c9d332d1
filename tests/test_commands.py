"""Every command line that a seed, the README or the documentation shows is understood."""

import importlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro
from lightning.pytorch.cli import LightningCLI

from gust_torch.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "solvers/README.md", "docs/data_artifacts.md", "docs/tokens.md")

# The commands of the seeds, `models` being `gust_torch` here. `_` and `-` are the same in flags.
SEEDS = """
python -m solvers.py2d_turbulence.run_solver --output_dir ./py2d_output --Re 1000 --NX 256 --tTotal 5.0
python -m solvers.rayleigh_benard.run_solver --output_dir ./rbc_output --rayleigh 1e6 --resolution 512x128
python -m gust_torch.tokenizer info --checkpoint model.ckpt --config_path config.txt --data_path data.h5
python -m gust_torch.tokenizer save --checkpoint model.ckpt --config_path config.txt --data_path data.h5 --output tokens.npz
python -m gust_torch.analyze_reconstruction --checkpoint model.ckpt --config_path config.txt --data_path data.h5 --output_dir ./analysis_output --sample_start 0 --sample_stop 10000
python scripts/convert_pdebench_multimodal.py burgers1d --root data/pdebench/raw --out data/pdebench --limit 5 --samples 200
python scripts/convert_pdebench_multimodal.py advection1d --root data/pdebench/raw --out data/pdebench
python scripts/convert_pdebench_multimodal.py navier_stokes2d --root data/pdebench/raw --out data/pdebench
python scripts/convert_pdebench.py --pattern 'data/pdebench/raw/1D/Burgers/Train/*.hdf5' --out data/pdebench/burgers1d_train.h5 --limit 5 --samples 200
python scripts/convert_pdebench_multimodal.py darcy2d_mesh --root data/pdebench/raw --out data/pdebench --limit 10
python scripts/convert_pdebench_multimodal.py particles_advect --root data/pdebench/raw --out data/pdebench --limit 10
python scripts/precompute_latent_cache.py --tasks burgers1d advection1d --splits train val test --cache-dir data/latent_cache --latent-dim 512 --latent-len 128 --num-workers 8 --pin-memory
python scripts/upload_artifact.py burgers1d-subset dataset artifacts/burgers1d_subset_v1.tar.gz --metadata '{"samples":20,"resolution":[201,1024],"parameters":["nu"]}'
python scripts/fetch_datasets.py burgers1d_subset_v1 --root data/pdebench --cache artifacts/cache
"""  # noqa: E501


class Parsed(BaseException):
    """The command line was understood; nothing has run."""


def shown_in(document: str) -> list[str]:
    """List the commands in the code blocks of a document, those with `...` left out."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```(?:bash|)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [re.sub(r"\s#.*", "", line).strip() for line in lines]
    starts = ("python -m ", "python scripts/", "gust-torch ")
    return [line for line in commands if line.startswith(starts) and "..." not in line]


def function_of(words: list[str], script: Callable[[str], Callable]) -> tuple[Callable, list[str]]:
    """Find what `python -m module`, `python scripts/name.py` or `gust-torch` calls, and its arguments."""
    if words[0] == "gust-torch":
        return main, words[1:]
    if words[1].startswith("scripts/"):
        return script(Path(words[1]).stem), words[2:]
    for name in (f"{words[2]}.__main__", words[2]):
        try:
            return importlib.import_module(name).main, words[3:]
        except ModuleNotFoundError:
            continue
    raise AssertionError(f"no module {words[2]}")


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop every command once its arguments are understood."""
    parse = tyro.cli

    def stop(*arguments: object, **options: object) -> None:
        parse(*arguments, **options)
        raise Parsed

    def stop_training(cli: LightningCLI) -> None:
        raise Parsed

    monkeypatch.setattr(tyro, "cli", stop)
    monkeypatch.setattr("solvers.common.cli.program", None)
    for solver in ("py2d_turbulence", "rayleigh_benard"):
        monkeypatch.setattr(f"solvers.{solver}.run_solver.find_resumed", lambda arguments: None)
    monkeypatch.setattr("gust_torch.tasks.cli.missing_file", lambda arguments: None)
    monkeypatch.setattr(LightningCLI, "instantiate_classes", stop_training)


def is_understood(line: str, script: Callable[[str], Callable]) -> None:
    """Parse a command line as its program would."""
    function, arguments = function_of(shlex.split(line), script)
    with pytest.raises(Parsed):
        function(arguments)


@pytest.mark.parametrize("line", SEEDS.strip().splitlines())
def test_commands_of_the_seeds(line: str, parse_only: None, script) -> None:
    is_understood(line, script)
    flags = re.sub(r"(?<= )--[a-z_-]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), line)
    is_understood(flags, script)
    is_understood(re.sub(r"(?<= )--[a-z_]+", lambda flag: flag[0].replace("_", "-"), line), script)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents(document: str, parse_only: None, script) -> None:
    commands = [line for line in shown_in(document) if "scripts/benchmark.py" not in line]
    assert commands
    for line in commands:
        is_understood(line, script)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_that_answers_soon(name: str) -> None:
    code = f"from gust_torch.cli import main; raise SystemExit(main({[*name.split(), '--help']!r}))"
    start = time.process_time(), time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()
    assert name == "train" or f"gust-torch {name}" in result.stdout
    assert time.monotonic() - start[1] < 30  # a bound on hangs; the goals stand in scripts/benchmark.py


def test_the_overview_fits_a_screen_and_imports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    code = "import sys; from gust_torch.cli import main; main(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "tyro", "h5py"} & set(loaded.split())


@pytest.mark.parametrize("arguments", [["nothing"], ["simulate"], ["simulate", "weather"]])
def test_a_command_that_is_none_ends_with_code_2(arguments, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_file_may_be_called_as_the_command_is(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "info").write_text("text")
    assert main(["info", "info"]) == 1
    assert "info: expected an HDF5 file" in capsys.readouterr().err
