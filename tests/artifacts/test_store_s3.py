"""Stores behind S3, against a server on this machine."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gust_torch.artifacts.store import Upload, open_reference, open_store

MakeFile = Callable[[int], Path]
UploadOf = Callable[..., Upload]
MIB = 2**20
# Three parts, the last one shorter than S3's least part size of 5 MiB.
SIZE = 33 * MIB + 7


@pytest.fixture
def client(s3_bucket: str) -> Any:
    """Return a client beside the code under test."""
    return pytest.importorskip("boto3").client("s3")


def keys(client: Any, bucket: str) -> list[str]:
    """Every object of a bucket."""
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def unfinished(client: Any, bucket: str) -> list[object]:
    """Multipart uploads that were neither confirmed nor given up."""
    found: list[object] = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


def test_round_trip_in_parts_and_ranges(
    s3_bucket: str, client: Any, tmp_path: Path, make_file: MakeFile, upload_of: UploadOf
) -> None:
    path = make_file(SIZE)
    store = open_store(f"s3://{s3_bucket}/sets/")
    store.check("burgers1d-subset", path.name)
    assert keys(client, s3_bucket) == []
    reference = store.put(upload_of(path))
    prefix = f"sets/burgers1d-subset/{upload_of(path).sha256[:16]}"
    assert reference[-1] == f"s3://{s3_bucket}/{prefix}/{path.name}"
    assert keys(client, s3_bucket) == [f"{prefix}/artifact.json", f"{prefix}/{path.name}"]
    assert client.head_object(Bucket=s3_bucket, Key=f"{prefix}/{path.name}")["ETag"].endswith('-3"')
    assert unfinished(client, s3_bucket) == []

    stored = open_reference(reference[-1])
    assert (stored.name, stored.size, stored.read is not None) == (path.name, SIZE, True)
    parts = stored.read([(start, min(start + MIB, SIZE)) for start in range(0, SIZE, MIB)])
    assert b"".join(parts) == path.read_bytes()
    stored.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_second_upload_writes_nothing(
    s3_bucket: str, client: Any, make_file: MakeFile, upload_of: UploadOf
) -> None:
    upload = upload_of(make_file(1000))
    first = open_store(f"s3://{s3_bucket}").put(upload)
    written = [
        client.head_object(Bucket=s3_bucket, Key=key)["LastModified"] for key in keys(client, s3_bucket)
    ]
    second = open_store(f"s3://{s3_bucket}").put(upload)
    assert second[-1] == first[-1]
    assert "already" in second[0]
    assert written == [
        client.head_object(Bucket=s3_bucket, Key=key)["LastModified"] for key in keys(client, s3_bucket)
    ]


def test_interrupted_upload_is_given_up(
    s3_bucket: str,
    client: Any,
    make_file: MakeFile,
    upload_of: UploadOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C while parts are on their way."""
    s3fs = pytest.importorskip("s3fs")
    upload = upload_of(make_file(SIZE))

    async def slow(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "upload_part" and options["PartNumber"] == 2:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)  # until the upload is given up
        return await s3fs.S3FileSystem._call_s3_before(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3_before", s3fs.S3FileSystem._call_s3, raising=False)
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", slow)
    with pytest.raises(KeyboardInterrupt):
        open_store(f"s3://{s3_bucket}").put(upload)
    assert keys(client, s3_bucket) == []
    assert unfinished(client, s3_bucket) == []
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", s3fs.S3FileSystem._call_s3_before)
    assert not open_store(f"s3://{s3_bucket}").put(upload)[1:]
    assert len(keys(client, s3_bucket)) == 2


def test_upload_of_a_changed_file_is_given_up(
    s3_bucket: str, client: Any, make_file: MakeFile, upload_of: UploadOf
) -> None:
    upload = upload_of(make_file(1000), stamp=(0, 0, 0))
    with pytest.raises(ValueError, match="changed while it was uploaded"):
        open_store(f"s3://{s3_bucket}").put(upload)
    assert keys(client, s3_bucket) == []
    assert unfinished(client, s3_bucket) == []


def test_range_of_a_file_that_shrank(
    s3_bucket: str, client: Any, make_file: MakeFile, upload_of: UploadOf
) -> None:
    reference = open_store(f"s3://{s3_bucket}").put(upload_of(make_file(1000)))
    stored = open_reference(reference[-1])
    key = reference[-1].removeprefix(f"s3://{s3_bucket}/")
    client.put_object(Bucket=s3_bucket, Key=key, Body=b"short")
    with pytest.raises(ValueError, match="replaced meanwhile"):
        stored.read([(0, 1000)])
    client.delete_object(Bucket=s3_bucket, Key=key)
    with pytest.raises(ValueError, match="no such file"):
        stored.read([(0, 1000)])


def test_what_is_not_there(s3_bucket: str, make_file: MakeFile, upload_of: UploadOf) -> None:
    with pytest.raises(ValueError, match=r"no such file .*check the URL and AWS_ENDPOINT_URL"):
        open_reference(f"s3://{s3_bucket}/none.tar.gz")
    with pytest.raises(ValueError, match="no such bucket"):
        open_reference("s3://no-such-bucket-here/none.tar.gz")
    with pytest.raises(ValueError, match="no such bucket"):
        open_store("s3://no-such-bucket-here/sets").check("name", "x.tar.gz")
    with pytest.raises(ValueError, match="no such bucket"):
        open_store("s3://no-such-bucket-here/sets").put(upload_of(make_file(10)))
    reference = open_store(f"s3://{s3_bucket}").put(upload_of(make_file(10)))
    with pytest.raises(ValueError, match="is a folder"):
        open_reference(reference[-1].rpartition("/")[0])


def test_no_login(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ValueError, match=r"no credentials .* set AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{s3_bucket}").check("name", "x.tar.gz")


def test_denied_access(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"s3://{s3_bucket}")

    def deny(*arguments: object, **options: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem.call_s3", deny)
    with pytest.raises(ValueError, match=r"access denied .* check the credentials"):
        store.check("name", "x.tar.gz")


def test_unreachable_endpoint(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"cannot be reached .* check the network and AWS_ENDPOINT_URL"):
        open_store(f"s3://{s3_bucket}").check("name", "x.tar.gz")


def test_bad_bucket_name(s3_bucket: str) -> None:
    with pytest.raises(ValueError, match="check the URL"):
        open_store("s3://UPPER_case!").check("name", "x.tar.gz")
