"""Files that appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Opens the hidden file `.NAME.part` beside `path`, which gets its name when the block ends well.

    The bytes are on the disk before the rename, so that not even a power cut leaves half a file. An error
    removes the file; what a killed process left there is removed first. The mode of a replaced file is kept.

    Args:
        path: The file to write; a symbolic link is followed.
    """
    target = path.resolve()
    partial = target.with_name(f".{target.name}.part")
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:  # follows no link
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            partial.chmod(target.stat().st_mode & 0o777)
        os.replace(partial, target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise
