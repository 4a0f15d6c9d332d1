"""A registry, a store, a cache and a root in a temporary folder, and the command that fetches."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gust_torch.artifacts.registry import DatasetEntry

SCRIPT = Path(__file__).parents[3] / "scripts" / "fetch_datasets.py"
NAME = "burgers1d_subset_v1"
FILES = {"burgers1d_train.h5": b"train" * 1000, "burgers1d_val.h5": b"val" * 10, "burgers1d_test.h5": b"test"}
STORE = {"darcy2d_mesh_train.zarr/zarr.json": b"{}", "darcy2d_mesh_train.zarr/coords/c/0/0": b"chunk" * 50}


class Place:
    """A registry, a store, a cache and a root in one folder.

    Attributes:
        root: Where datasets are fetched to.
        cache: Where tarballs are kept.
    """

    script = SCRIPT
    name, files, store = NAME, FILES, STORE

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.cache = folder, folder / "data", folder / "cache"
        self.registry = folder / "registry.yaml"
        self.registry.write_text("")

    def add(
        self, name: str = NAME, files: dict[str, bytes] = FILES, artifact: str | None = None
    ) -> DatasetEntry:
        """Packs files, puts the tarball into a folder and registers it; an older entry is replaced."""
        tarball = self.folder / "store" / f"{name}.tar.gz"
        tarball.parent.mkdir(exist_ok=True)
        with tarfile.open(tarball, "w:gz") as tar:
            for folder in sorted({file.partition("/")[0] for file in files if "/" in file}):
                info = tarfile.TarInfo(folder)
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            for file, data in files.items():
                info = tarfile.TarInfo(file)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        tops = list(dict.fromkeys(file.partition("/")[0] for file in files))
        entry = DatasetEntry(
            name=name,
            artifact=artifact or tarball.as_uri(),
            kind="grid",
            splits=dict(zip(("train", "val", "test"), tops, strict=False)),
            sha256=hashlib.sha256(tarball.read_bytes()).hexdigest(),
            size=tarball.stat().st_size,
            unpacked=sum(map(len, files.values())),
        )
        self.register(entry)
        return entry

    def register(self, entry: DatasetEntry) -> None:
        """Write an entry into the registry."""
        entries = [text for text in self.registry.read_text().split("\n\n") if text]
        kept = [text for text in entries if not text.startswith(f"{entry.name}:")]
        self.registry.write_text("\n\n".join([*kept, entry.to_yaml().rstrip()]) + "\n\n")

    def arguments(self, *words: str) -> list[str]:
        """Return a command line."""
        paths = ["--root", str(self.root), "--cache", str(self.cache), "--registry", str(self.registry)]
        return [*(words or (NAME,)), *paths]

    def cached(self, entry: DatasetEntry) -> Path:
        """Return the tarball in the cache."""
        return self.cache / entry.sha256 / f"{entry.name}.tar.gz"

    def content(self) -> dict[str, bytes]:
        """Files in the root, without receipts."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and ".gust" not in path.parts)
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def command(script: Callable[[str], Callable[[list[str]], int]]) -> Callable[[list[str]], int]:
    """Return `main` of the script."""
    return script("fetch_datasets")


@pytest.fixture
def run(
    command: Callable[[list[str]], int], place: Place, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command and returns its standard output."""

    def call(*words: str) -> str:
        code = command(place.arguments(*words))
        output, errors = capfd.readouterr()
        assert code == 0, errors
        assert "0/0 MB" not in errors
        return output

    return call


@pytest.fixture
def refused(
    command: Callable[[list[str]], int], place: Place, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command, which must fail, and returns the one line that it says."""

    def call(*words: str) -> str:
        assert command(place.arguments(*words)) == 1
        output, errors = capfd.readouterr()
        assert output == ""
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, errors
        return lines[0]

    return call
