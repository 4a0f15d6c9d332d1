"""What is said of files that cannot be opened: never "damaged" where they are not."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from solvers.common.hdf5.reader import open_error, open_file, open_hdf5
from solvers.common.hdf5.structure import Contents


class NoCredentialsError(Exception):
    """As botocore has it."""


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (
            BlockingIOError(11, "Unable to open file (unable to lock file, errno = 11, error message = 'x')"),
            "writ",
        ),
        (
            OSError(37, "Unable to open file (unable to lock file, errno = 37, error message = 'x')"),
            "LOCKING",
        ),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit"),
        (
            OSError("Unable to open file (unable to open file: errno = 24, error message = 'Too many')"),
            "ulimit",
        ),
        (NoCredentialsError("Unable to locate credentials"), "AWS_ACCESS_KEY_ID"),
        (ImportError("Install s3fs to access S3"), "install"),
        (OSError("Can't read data (required filter 'blosc' is not registered)"), "blosc"),
        (FileNotFoundError("s3://b/x.h5"), "no such file"),
        (PermissionError("Forbidden"), "access denied"),
        (OSError(errno.ESTALE, "Stale file handle"), "try again"),
        (OSError("Unable to open file (file signature not found)"), "damaged"),
    ],
)
def test_each_cause_has_its_remedy(error: Exception, word: str) -> None:
    text = str(open_error("a.h5", error))
    assert text.startswith("a.h5: ")
    assert word in text
    assert ("damaged" in text) == (word == "damaged")
    assert "\n" not in text


def test_a_url_is_shown_without_its_secrets() -> None:
    text = str(
        open_error("https://me:word@host/a.h5?signature=1", OSError("https://me:word@host/a.h5?signature=1"))
    )
    assert text.startswith("https://host/a.h5: ")
    assert not {"me:word", "signature"} & set(text.replace("@", " ").replace("?", " ").split())


def test_a_file_that_a_program_holds_open_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["fields/v"] = np.zeros((2, 4, 4), "f4")
    code = f"import h5py, sys; file = h5py.File({str(path)!r}, 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(ValueError, match=r"a\.h5: another program has it open for writing"):
            open_file(path)
        writer.communicate()
    open_file(path).close()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["fields/v"] = np.zeros((2, 4, 4), "f4")
    plain = h5py.File

    def without_locks(*arguments: object, **options: object) -> h5py.File:
        if options.get("locking") is not False:
            raise OSError(
                errno.ENOLCK, "Unable to open file (unable to lock file, errno = 37, error message = '')"
            )
        return plain(*arguments, **options)

    monkeypatch.setattr("solvers.common.hdf5.reader.h5py.File", without_locks)
    open_file(path).close()


def test_a_second_handle_on_a_file_opened_without_locks(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["fields/v"] = np.zeros((2, 4, 4), "f4")
    with h5py.File(path, "r", locking=False), open_file(path) as file:
        assert file["fields/v"].shape == (2, 4, 4)


@pytest.mark.parametrize("size", [512, 2048])
def test_a_user_block_is_passed_over(tmp_path: Path, size: int) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=size) as file:
        file["fields/v"] = np.zeros((2, 4, 4), "f4")
    open_file(tmp_path / "a.h5").close()
    with (tmp_path / "text").open("wb") as file:
        file.write(b"no HDF5" * 1000)
    with pytest.raises(ValueError, match="starts with"):
        open_hdf5(tmp_path / "text")


def test_something_that_is_no_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(ValueError, match="no file"):
        open_file(tmp_path / "pipe.h5")


def test_filters_of_plugins_are_loaded(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("fields/v", data=np.ones((2, 4, 4), "f4"), chunks=(1, 4, 4), **hdf5plugin.Zstd())
    with open_file(tmp_path / "a.h5") as file:
        assert file["fields/v"][1].sum() == 16


def test_a_filter_that_nobody_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("fields/v", data=np.ones((2, 4, 4), "f4"), chunks=(1, 4, 4), **hdf5plugin.Zstd())
    monkeypatch.setattr("solvers.common.hdf5.schema.h5py.h5z.filter_avail", lambda code: False)
    with (
        open_file(tmp_path / "a.h5") as file,
        pytest.raises(ValueError, match="/fields/v: it is compressed by HDF5 filter 32015"),
    ):
        Contents(file, "a.h5").dataset("fields/v")
