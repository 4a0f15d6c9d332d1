"""Fixtures that every test folder shares."""

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

# What is started in the background of a shell ignores SIGINT, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

Main = Callable[[list[str]], int]

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference trajectories and upstream sample files beside the project; skips when absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def script() -> Callable[[str], Main]:
    """`script("name")`: the function `main` of scripts/name.py."""

    def load(name: str) -> Main:
        specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        main: Main = module.main
        return main

    return load


@pytest.fixture
def refused(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """`refused(checkpoint, data, message, *flags)`: `run` of the test's module says so and writes nothing."""

    def check(checkpoint: Path, data: Path, message: str, *flags: str) -> None:
        assert request.module.run(checkpoint, data, tmp_path / "out", *flags) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error
        assert not (tmp_path / "out").exists()

    return check
