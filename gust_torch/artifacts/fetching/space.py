"""Room on the disks, looked at before a long copy starts."""

import shutil
from collections.abc import Iterable
from pathlib import Path


def check_space(needs: Iterable[tuple[Path, int]]) -> None:
    """Compare what is needed with what is free; folders on one disk share its room.

    Args:
        needs: Folders, which need not exist, and the bytes that will be written below them.

    Raises:
        ValueError: A disk has too little room.
    """
    disks: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in needs:
        if size > 0:
            disks.setdefault(_existing(folder).stat().st_dev, []).append((folder, size))
    for group in disks.values():
        free = shutil.disk_usage(_existing(group[0][0])).free
        if (total := sum(size for _, size in group)) > free:
            parts = " and ".join(f"{format_bytes(size)} in {folder}" for folder, size in group)
            raise ValueError(
                f"not enough room on the disk: {format_bytes(total)} are needed ({parts}), "
                f"{format_bytes(free)} are free; make room or name folders on another disk"
            )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def format_bytes(size: float) -> str:
    """Bytes for people, e.g. "16.9 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"
