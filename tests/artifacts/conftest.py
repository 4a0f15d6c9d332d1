"""A local S3 server, a stand-in for wandb, and an environment without the developer's own logins."""

import hashlib
import os
import random
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace, TracebackType

import pytest

from gust_torch.artifacts.store import Upload, stamp

SECRET = "moto-secret-5c1e9d7a"


@pytest.fixture(autouse=True)
def _no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Take WANDB_* and AWS_* variables, netrc and AWS configuration away, and those that a test leaves."""
    prefixes = ("WANDB_", "AWS_", "GUST_")
    before = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    for name in before:
        del os.environ[name]
    for name in ("NETRC", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none" / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    monkeypatch.undo()
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of an S3 server on this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a new bucket on the local server, for which the environment holds the login."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moto")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    bucket = f"data-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return bucket


class FakeArtifact:
    """wandb's Artifact and its only manifest entry."""

    def __init__(self, name: str, type: str, metadata: dict[str, object]) -> None:
        self.collection, self.type, self.metadata = name, type, metadata
        self.manifest = SimpleNamespace(entries={})

    def add_file(self, local_path: str, name: str, policy: str, skip_cache: bool) -> None:
        data = Path(local_path).read_bytes()

        self.manifest.entries[name] = SimpleNamespace(size=len(data), data=data)
        self.size = len(data)

    def download(self, root: str, skip_cache: bool) -> str:
        Path(root).mkdir()
        for name, entry in self.manifest.entries.items():
            (Path(root) / name).write_bytes(entry.data)
        return root

    def wait(self) -> "FakeArtifact":
        return self


class FakeWandb:
    """What we use of wandb: runs that log artifacts into a dictionary, and an API that finds them there.

    Attributes:
        artifacts: "entity/project/name:version" -> artifact.
        runs: Keyword arguments of each run.
    """

    errors = SimpleNamespace(Error=type("Error", (Exception,), {}))
    Artifact = FakeArtifact
    Settings = dict

    def __init__(self) -> None:
        self.artifacts: dict[str, FakeArtifact] = {}
        self.runs: list[dict[str, object]] = []

    def init(self, **settings: object) -> "FakeRun":
        self.runs.append(settings)
        return FakeRun(self, f"{settings['entity'] or 'me'}/{settings['project']}")

    def Api(self, timeout: int) -> "FakeWandb":
        return self

    def artifact(self, name: str) -> FakeArtifact:
        full = name if name.count("/") == 2 else f"me/{name}"
        if full not in self.artifacts:
            raise self.errors.Error(f"artifact membership {name!r} not found")
        return self.artifacts[full]


class FakeRun:
    """A run that logs artifacts at once."""

    dir = "/nowhere/files"

    def __init__(self, wandb: FakeWandb, place: str) -> None:
        self.wandb, self.place = wandb, place

    def __enter__(self) -> "FakeRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run."""

    def log_artifact(self, artifact: FakeArtifact) -> FakeArtifact:
        prefix = f"{self.place}/{artifact.collection}"
        version = sum(name.startswith(f"{prefix}:v") for name in self.wandb.artifacts)
        artifact.qualified_name = f"{prefix}:v{version}"
        self.wandb.artifacts[artifact.qualified_name] = self.wandb.artifacts[f"{prefix}:latest"] = artifact
        return artifact


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """Return a stand-in for wandb, and a login for it."""
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    return fake


@pytest.fixture
def upload_of() -> Callable[..., Upload]:
    """Make an upload of a file as a data set; keywords change its values."""

    def make(path: Path, **changes: object) -> Upload:
        values: dict[str, object] = {
            "name": "burgers1d-subset",
            "type": "dataset",
            "path": path,
            "metadata": {"samples": 20, "resolution": [201, 1024], "parameters": ["nu"]},
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "stamp": stamp(path),
        }
        return Upload(**{**values, **changes})

    return make


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[int], Path]:
    """Write a file of a size in bytes, the same each time, in which no two places look alike."""

    def make(size: int) -> Path:
        path = tmp_path / "burgers1d_subset_v1.tar.gz"
        path.write_bytes(random.Random(0).randbytes(size))
        return path

    return make
