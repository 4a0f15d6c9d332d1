"""W&B at its boundary: a stand-in for the client, one real offline run, one real refusal."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gust_torch.artifacts.reference import reference_problem
from gust_torch.artifacts.store import Upload, open_reference, open_store
from gust_torch.artifacts.wandb_store import WandbStore, remedy, wandb_session

MakeFile = Callable[[int], Path]
UploadOf = Callable[..., Upload]
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "upload_artifact.py"
KEY = "5ec2e7" * 7  # has the form of a key

needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., WandbStore]:
    """Open W&B for uploads to someone/flows."""

    def opened(**changes: Any) -> WandbStore:
        return open_store(
            "wandb", **{"project": "flows", "entity": "someone", "cache_dir": tmp_path / "cache", **changes}
        )

    return opened


def test_upload_then_download(
    fake_wandb: Any,
    store: Callable[..., WandbStore],
    tmp_path: Path,
    make_file: MakeFile,
    upload_of: UploadOf,
) -> None:
    path = make_file(5000)
    upload = upload_of(path)
    target = store(run_name="nightly")
    target.check(upload.name, path.name)
    reference = target.put(upload)
    assert reference[-1] == "someone/flows/burgers1d-subset:v0"
    artifact = fake_wandb.artifacts[reference[-1]]
    assert artifact.type == "dataset"
    assert artifact.metadata == {
        **upload.metadata,
        "sha256": upload.sha256,
        "package_version": artifact.metadata["package_version"],
        "git_commit": artifact.metadata["git_commit"],
    }
    run = fake_wandb.runs[0]
    assert (run["job_type"], run["name"], run["mode"]) == ("upload", "nightly", "online")
    assert run["dir"] == str(tmp_path / "cache")

    stored = open_reference("someone/flows/burgers1d-subset:v0", cache_dir=tmp_path)
    assert (stored.name, stored.size, stored.read is not None) == (path.name, 5000, False)
    stored.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(".copy*"))


def test_second_upload_starts_no_run(
    fake_wandb: Any, store: Callable[..., WandbStore], make_file: MakeFile, upload_of: UploadOf
) -> None:
    upload = upload_of(make_file(10))
    first = store().put(upload)
    second = store().put(upload)
    assert second[-1] == first[-1]
    assert "already" in second[0]
    assert len(fake_wandb.runs) == 1
    assert store().put(upload_of(make_file(11)))[-1] == "someone/flows/burgers1d-subset:v1"


@pytest.mark.parametrize("change", [{"metadata": {"samples": 21}}, {"type": "model"}])
def test_same_bytes_described_differently(
    fake_wandb: Any,
    store: Callable[..., WandbStore],
    make_file: MakeFile,
    upload_of: UploadOf,
    change: dict[str, object],
) -> None:
    path = make_file(10)
    store().put(upload_of(path))
    with pytest.raises(ValueError, match=r"has these bytes already, as dataset .* under another name"):
        store().put(upload_of(path, **change))


def test_entity_of_the_login(
    fake_wandb: Any, store: Callable[..., WandbStore], make_file: MakeFile, upload_of: UploadOf
) -> None:
    upload = upload_of(make_file(10))
    assert store(entity=None).put(upload)[-1] == "me/flows/burgers1d-subset:v0"
    assert store(entity=None).put(upload)[1:]


def test_file_of_an_artifact(
    fake_wandb: Any,
    store: Callable[..., WandbStore],
    tmp_path: Path,
    make_file: MakeFile,
    upload_of: UploadOf,
) -> None:
    reference = store().put(upload_of(make_file(10)))[-1]
    entries = fake_wandb.artifacts[reference].manifest.entries
    entries["notes/readme.md"] = entries["burgers1d_subset_v1.tar.gz"]
    with pytest.raises(ValueError, match=r"has 2 files; upload one tarball"):
        open_reference(reference, cache_dir=tmp_path)
    entries.clear()
    with pytest.raises(ValueError, match="has 0 files"):
        open_reference(reference, cache_dir=tmp_path)


def test_incomplete_upload_is_noticed(
    fake_wandb: Any,
    store: Callable[..., WandbStore],
    make_file: MakeFile,
    upload_of: UploadOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        fake_wandb.Artifact, "wait", lambda artifact: setattr(artifact, "size", 3) or artifact
    )
    with pytest.raises(ValueError, match="has 3 bytes"):
        store().put(upload_of(make_file(10)))


def test_folders_that_the_user_chose(
    fake_wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "chosen"))
    with wandb_session(tmp_path / "cache", "test"):
        assert os.environ["WANDB_DIR"] == str(tmp_path / "chosen")
    assert os.environ["WANDB_DIR"] == str(tmp_path / "chosen")


def test_missing_artifact_is_one_line(fake_wandb: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a/b/c:v0: .* not found; check entity, project, name and version"):
        open_reference("a/b/c:v0", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("permission denied\nlong trace", "may use this entity and project"),
        ("Timed out while retrying: Post https://...", "server cannot be reached"),
        ("API key must have 40+ characters, has 3.", "check WANDB_API_KEY"),
        ("", "RuntimeError"),
    ],
)
def test_errors_have_a_remedy(text: str, expected: str) -> None:
    line = remedy(RuntimeError(text))
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        ({}, {}, r"no W&B login for api\.wandb\.ai; run `wandb login`, set WANDB_API_KEY"),
        ({"WANDB_BASE_URL": "https://wandb.uni.example"}, {}, r"no W&B login for wandb\.uni\.example"),
        ({"WANDB_MODE": "disabled"}, {}, "would drop the upload"),
        ({}, {"project": None}, "give --project or set WANDB_PROJECT"),
        ({}, {"project": "a/b"}, "give --project"),
        ({}, {"entity": "<entity>"}, "give --entity"),
    ],
)
def test_settings_are_checked_without_wandb(
    store: Callable[..., WandbStore],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    settings: dict[str, str | None],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        store(**settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("machine api.wandb.ai login user password x\n", None),
        ("machine other.example login user password x\n", "no W&B login"),
        ("machine\n", r"netrc, line \d|netrc line \d|line \d"),
    ],
)
def test_login_in_netrc(
    store: Callable[..., WandbStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    message: str | None,
) -> None:
    (tmp_path / "netrc").write_text(text)
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if message is None:
        assert store()
        return
    with pytest.raises(ValueError, match=message):
        store()


def test_missing_wandb_names_the_remedy(
    store: Callable[..., WandbStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'gust_torch\[wandb\]'"):
        store().check("name", "x.tar.gz")


def run_upload(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder of its own, with a home of its own."""
    (folder / "x.tar.gz").write_bytes(b"0123456789")
    command = [sys.executable, str(SCRIPT), "burgers1d-subset", "dataset", "x.tar.gz", "--project", "flows"]
    own = {"HOME": str(folder / "home"), "WANDB_API_KEY": KEY, **variables}
    return subprocess.run(
        [*command, "--metadata", '{"samples": 20}'],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_wandb
def test_real_offline_run(tmp_path: Path) -> None:
    result = run_upload(tmp_path, WANDB_MODE="offline")
    assert (result.returncode, result.stderr) == (0, "")
    *notes, last = result.stdout.splitlines()
    assert last == "<entity>/flows/burgers1d-subset:<version>"
    assert "placeholder" in (reference_problem(last) or "")  # the registry does not take it as it is
    folder = Path(next(note for note in notes if "wandb sync" in note).rpartition(" ")[2])
    assert folder.parent == tmp_path / "artifacts" / "cache" / "wandb"
    log = next(folder.glob("*.wandb")).read_bytes()
    for word in (b"burgers1d-subset", b"x.tar.gz", b"samples", b"84d89877f0d4041efb6bf91a16f0248f2fd573e6af"):
        assert word in log
    assert {path.name for path in tmp_path.iterdir()} <= {"artifacts", "x.tar.gz", "home"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in result.stdout


@needs_wandb
def test_real_refusal_of_a_key_keeps_it_secret(tmp_path: Path) -> None:
    result = run_upload(tmp_path, WANDB_API_KEY="5ec2e7")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: W&B project flows: WANDB_API_KEY invalid")
    assert result.stderr.count("\n") == 1
    assert "5ec2e7" not in result.stderr


class Refuses(BaseHTTPRequestHandler):
    """A W&B server that knows no login."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@needs_wandb
def test_real_refusal_by_a_server(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = run_upload(tmp_path, WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: W&B project flows: ")
    assert result.stderr.rstrip().endswith("check WANDB_API_KEY or run `wandb login --relogin`")
    assert result.stderr.count("\n") == 1
    assert KEY not in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@needs_wandb
def test_calls_fit_the_real_client() -> None:
    import wandb

    inspect.signature(wandb.Api).bind(timeout=1)
    inspect.signature(wandb.Api.artifact).bind(None, "name")
    inspect.signature(wandb.init).bind(
        project="p", entity=None, name=None, job_type="j", dir="d", mode="m", settings=None
    )
    inspect.signature(wandb.Artifact).bind("name", type="t", metadata={})
    inspect.signature(wandb.Artifact.add_file).bind(None, "x", name="x", policy="immutable", skip_cache=True)
    inspect.signature(wandb.Artifact.download).bind(None, root="r", skip_cache=True)
    for name in ("wait", "size", "metadata", "type", "manifest", "qualified_name"):
        assert hasattr(wandb.Artifact, name)
    assert issubclass(wandb.errors.Error, Exception)
    assert json.dumps(wandb.Settings(console="off", disable_git=True, disable_code=True).console) == '"off"'
