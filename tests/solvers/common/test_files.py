"""Files that appear complete or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from solvers.common.files import WriterLock, file_sha256, path_aside, written_aside


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), written_aside(target) as file:
        file.write("no bytes")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_followed_and_the_mode_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "file", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    with path_aside(link) as partial:
        partial.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.part").write_bytes(b"longer than what comes")
    with written_aside(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_one_writer_at_a_time_and_the_lock_of_a_dead_one_is_free(tmp_path: Path) -> None:
    output = tmp_path / "output"
    if (child := os.fork()) == 0:
        WriterLock(output)
        os._exit(0)
    os.waitpid(child, 0)
    lock = WriterLock(output)
    with pytest.raises(BlockingIOError, match="another process"):
        WriterLock(output)
    lock.release()
    WriterLock(output).release()


def test_checksum(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    counts: list[int] = []
    assert file_sha256(tmp_path / "file", counts.append) == hashlib.sha256(content).hexdigest()
    assert sum(counts) == len(content)


def test_a_command_that_outlives_its_parent_keeps_the_lock(tmp_path: Path) -> None:
    """Where it inherited it."""
    code = (
        "import os, subprocess, sys\nfrom pathlib import Path\nfrom solvers.common.files import WriterLock\n"
        "lock = WriterLock(Path(sys.argv[1]))\nlock.inherit()\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    output = tmp_path / "run"
    result = subprocess.run([sys.executable, "-c", code, str(output)], stdout=subprocess.PIPE, text=True)
    child = int(result.stdout)
    try:
        with pytest.raises(BlockingIOError):
            WriterLock(output)
    finally:
        os.kill(child, signal.SIGKILL)
    WriterLock(output, timeout=10.0).release()
