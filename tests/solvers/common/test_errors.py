"""Errors on one line, with a remedy."""

import errno
from pathlib import Path

import pytest

from solvers.common.errors import one_line


def test_an_error_of_the_operating_system_gets_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        path.open()
    assert one_line(caught.value) == f"{path}: no such file or directory; check the path"


def test_a_full_disk_gets_a_remedy_even_where_no_file_is_named() -> None:
    assert one_line(OSError(errno.ENOSPC, "No space left on device")) == (
        "no space left on device; make room on the disk"
    )


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.touch()
    with pytest.raises(FileExistsError) as caught:
        path.mkdir()
    assert one_line(caught.value) == f"{path}: file exists; a file is in the way, choose another folder"


def test_other_messages_are_kept_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert (
        one_line(FileExistsError("x exists; choose another --output")) == "x exists; choose another --output"
    )


def test_tracebacks_of_reading_processes_are_cut() -> None:
    error = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback\n  x\nValueError: a.h5: bad"
    )
    assert one_line(error) == "a.h5: bad"
