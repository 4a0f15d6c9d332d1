"""The contract of the stores, on a folder of this machine."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fsspec.registry import _registry

from gust_torch.artifacts.reference import reference_problem
from gust_torch.artifacts.store import Upload, explained, open_reference, open_store

MakeFile = Callable[[int], Path]
UploadOf = Callable[..., Upload]
METADATA = {"samples": 20, "resolution": [201, 1024], "parameters": ["nu"]}


def files_below(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def put(store: Path, upload: Upload) -> list[str]:
    """Store a file in a folder."""
    return open_store(f"file://{store}").put(upload)


def test_layout_and_round_trip(tmp_path: Path, make_file: MakeFile, upload_of: UploadOf) -> None:
    path = make_file(100_000)
    upload = upload_of(path)
    reference = put(tmp_path / "store", upload)
    folder = f"burgers1d-subset/{upload.sha256[:16]}"
    assert reference[-1] == f"file://{tmp_path}/store/{folder}/{path.name}"
    assert files_below(tmp_path / "store") == [f"{folder}/artifact.json", f"{folder}/{path.name}"]
    described = json.loads((tmp_path / "store" / folder / "artifact.json").read_text())
    assert described.pop("provenance")["git_commit"]
    assert described == {
        "format_version": 1,
        "name": "burgers1d-subset",
        "type": "dataset",
        "file": path.name,
        "size": 100_000,
        "sha256": upload.sha256,
        "metadata": METADATA,
    }
    stored = open_reference(reference[-1])
    assert (stored.name, stored.size, stored.read is not None) == (path.name, 100_000, True)
    assert stored.read([(0, 9), (70_000, 100_000)]) == [path.read_bytes()[:9], path.read_bytes()[70_000:]]
    stored.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_percent_signs_in_a_file_url(tmp_path: Path, make_file: MakeFile, upload_of: UploadOf) -> None:
    store = tmp_path / "my store"
    reference = open_store(store.as_uri()).put(upload_of(make_file(10)))
    assert "my%20store" in reference[-1]
    assert open_reference(reference[-1]).size == 10
    assert len(files_below(store)) == 2


def test_second_upload_touches_nothing(tmp_path: Path, make_file: MakeFile, upload_of: UploadOf) -> None:
    path, store = make_file(1000), tmp_path / "store"
    first = put(store, upload_of(path))
    before = {file: (store / file).stat().st_mtime_ns for file in files_below(store)}
    renamed = path.rename(path.with_name("other_name.tar.gz"))
    second = put(store, upload_of(renamed))
    assert second[-1] == first[-1]  # the bytes are known, whatever their file is called now
    assert "already" in second[0]
    assert {file: (store / file).stat().st_mtime_ns for file in files_below(store)} == before


def test_other_bytes_go_beside(tmp_path: Path, make_file: MakeFile, upload_of: UploadOf) -> None:
    path, store = make_file(1000), tmp_path / "store"
    first = put(store, upload_of(path))
    old = path.read_bytes()
    second = put(store, upload_of(make_file(1001)))
    assert first[-1] != second[-1]
    assert open_reference(first[-1]).read([(0, 1000)]) == [old]


@pytest.mark.parametrize("change", [{"metadata": {"samples": 21}}, {"type": "model"}])
def test_same_bytes_described_differently(
    tmp_path: Path, make_file: MakeFile, upload_of: UploadOf, change: dict[str, object]
) -> None:
    path = make_file(1000)
    put(tmp_path / "store", upload_of(path))
    with pytest.raises(ValueError, match=r"has these bytes already, as .*; upload them under another name"):
        put(tmp_path / "store", upload_of(path, **change))
    assert put(tmp_path / "store", upload_of(path, name="another", **change))[-1]


def test_tuples_are_lists_in_json(tmp_path: Path, make_file: MakeFile, upload_of: UploadOf) -> None:
    path = make_file(10)
    put(tmp_path / "store", upload_of(path, metadata={"resolution": (201, 1024)}))
    assert put(tmp_path / "store", upload_of(path, metadata={"resolution": [201, 1024]}))[1:]


def test_file_that_is_not_what_was_hashed(tmp_path: Path, make_file: MakeFile, upload_of: UploadOf) -> None:
    upload = upload_of(make_file(1000))
    make_file(999)
    with pytest.raises(ValueError, match="changed while it was uploaded"):
        put(tmp_path / "store", upload)
    assert files_below(tmp_path / "store") == []


def test_interrupt_leaves_nothing(
    tmp_path: Path, make_file: MakeFile, upload_of: UploadOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = upload_of(make_file(1000))

    def dying(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", dying)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path / "store", upload)
    assert files_below(tmp_path / "store") == []
    monkeypatch.undo()
    assert not put(tmp_path / "store", upload)[1:]


def test_store_that_keeps_less_than_it_got(
    tmp_path: Path, make_file: MakeFile, upload_of: UploadOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: target.write_bytes(b"half"))
    with pytest.raises(ValueError, match="4 bytes instead of 1000; upload it again"):
        put(tmp_path / "store", upload_of(make_file(1000)))
    assert [Path(name).name for name in files_below(tmp_path / "store")] == ["burgers1d_subset_v1.tar.gz"]


@pytest.mark.parametrize("lost", ["artifact.json", "burgers1d_subset_v1.tar.gz"])
def test_incomplete_folder_is_completed(
    tmp_path: Path, make_file: MakeFile, upload_of: UploadOf, lost: str
) -> None:
    path = make_file(1000)
    reference = put(tmp_path / "store", upload_of(path))
    stored = Path(reference[-1].removeprefix("file://"))
    (stored.parent / lost).unlink()
    assert not put(tmp_path / "store", upload_of(path))[1:]
    assert files_below(stored.parent) == ["artifact.json", path.name]
    assert stored.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 5000, '{"file": "../../passwd", "size": 5}'])
def test_damaged_description_is_written_anew(
    tmp_path: Path, make_file: MakeFile, upload_of: UploadOf, text: str
) -> None:
    path = make_file(10)
    reference = put(tmp_path / "store", upload_of(path))
    description = Path(reference[-1].removeprefix("file://")).with_name("artifact.json")
    good = description.read_text()
    description.write_text(text)
    assert put(tmp_path / "store", upload_of(path)) == reference
    assert description.read_text() == good


def test_places_that_take_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="a file is in the way"):
        open_store(f"file://{tmp_path}/file/store").check("name", "x.tar.gz")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ValueError, match="access denied"):
            open_store(f"file://{tmp_path}/closed/store").check("name", "x.tar.gz")
    with pytest.raises(ValueError, match="is the name of the store's own file"):
        open_store(f"file://{tmp_path}").check("name", "artifact.json")
    with pytest.raises(ValueError, match="without spaces"):  # the registry could not hold its reference
        open_store(f"file://{tmp_path}").check("name", "my data.tar.gz")
    assert files_below(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///nowhere/x.tar.gz", "no such file"),
        ("file:///etc", "is a folder"),
        ("file://relative/x.tar.gz", "plain URL"),
        ("file:///data/../x.tar.gz", "plain URL"),
        ("s3:///x.tar.gz", "plain URL"),
        ("zzz://host/x.tar.gz", "zzz:// is unknown"),
        ("filecache::s3://bucket/x", "plain URL"),
        ("https://host/x.tar.gz?token=abc", "plain URL"),
    ],
)
def test_urls_that_cannot_be_read(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_reference(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:topsecret@bucket/folder",
        "s3://AKIA123:topsecret@bucket",
        "s3://AKIA123:top/secret/topsecret@bucket/x.tar.gz",
        "s3://AKIA123:topsecret@<bucket>/x.tar.gz",
        "s3://AKIA123:topsecret@bucket/my data.tar.gz",
        "S3://AKIA123:topsecret@bucket/x.tar.gz",
        "https://topsecret@host/x.tar.gz",
        "https://host/x.tar.gz?X-Amz-Signature=topsecret",
        "https://host/x.tar.gz#topsecret",
        "https://host/<x>?token=topsecret",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    assert "topsecret" not in str(reference_problem(url) or "topsecret")
    with pytest.raises(ValueError, match=r"password|plain URL|unknown store") as caught:
        open_store(url)
    assert "topsecret" not in str(caught.value)


def test_a_login_in_the_endpoint_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:topsecret@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "topsecret")
    with pytest.raises(ValueError, match=r"s3://bucket/x\.tar\.gz: ") as caught:
        open_reference("s3://bucket/x.tar.gz")
    assert "topsecret" not in str(caught.value)
    with pytest.raises(ValueError, match="bad http://host/x"), explained("s3://bucket"):
        raise OSError("bad http://user:topsecret@host/x")


@pytest.mark.parametrize("store", ["Wandb", "data/store", "/data/store"])
def test_unknown_store(store: str) -> None:
    with pytest.raises(ValueError, match=r"unknown store .* give wandb, file:///folder or s3://bucket"):
        open_store(store)


def test_web_server_takes_no_uploads() -> None:
    with pytest.raises(ValueError, match="unknown store"):
        open_store("https://host/folder")


@contextlib.contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """URL of a web server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    """URL of a web server for the test's folder; it reads no ranges."""
    pytest.importorskip("aiohttp")
    with serving(functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as url:
        yield url


def test_web_server(tmp_path: Path, make_file: MakeFile, web_server: str) -> None:
    path = make_file(1000)
    stored = open_reference(f"{web_server}/{path.name}")
    assert (stored.name, stored.size, stored.read is not None) == (path.name, 1000, False)
    stored.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="no such file"):
        open_reference(f"{web_server}/none.tar.gz")
    with pytest.raises(ValueError, match="cannot be reached"):
        open_reference("http://127.0.0.1:1/none.tar.gz")


class _Ranges(BaseHTTPRequestHandler):
    """A web server with one file; its answer to a whole read has no end when `endless`."""

    content = bytes(range(256)) * 40
    endless = False

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        start, stop = 0, len(self.content)
        if not self.endless and (wanted := self.headers["Range"]) is not None:
            start, last = map(int, wanted.removeprefix("bytes=").split("-"))
            stop = last + 1
        self.send_response(200 if stop - start == len(self.content) else 206)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for _ in range(300 if self.endless else 1):
                self.wfile.write(self.content[start:stop] * (100 if self.endless else 1))

    def log_message(self, *words: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("endless", [False, True])
def test_web_servers_that_read_ranges_and_that_have_no_end(tmp_path: Path, endless: bool) -> None:
    pytest.importorskip("aiohttp")
    handler = type("Handler", (_Ranges,), {"endless": endless})
    with serving(handler) as url:
        stored = open_reference(f"{url}/x.tar.gz")
        assert (stored.read is not None) == (not endless)
        if endless:
            with pytest.raises(ValueError, match="more than its 10240 bytes"):
                stored.download(tmp_path / "copy")
            assert (tmp_path / "copy").stat().st_size < 20 << 20
        else:
            assert stored.read([(1000, 5000)]) == [_Ranges.content[1000:5000]]
            stored.download(tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == _Ranges.content


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # of an earlier test
    with pytest.raises(ValueError, match=r"pip install 'gust_torch\[s3\]'"):
        open_store("s3://bucket/folder")


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, gust_torch.artifacts.store, gust_torch.artifacts.upload;"
        "print(*{'torch', 'wandb', 's3fs', 'fsspec', 'botocore', 'numpy'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
