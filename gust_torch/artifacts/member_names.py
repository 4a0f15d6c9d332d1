"""Which names a dataset's tarball may hold: its split files, and what lies below its split folders (.zarr).

A tarball comes over a network, so its names are checked as if someone meant harm: nothing may point out of
the folder, mean another file on another operating system, or come twice.
"""

import unicodedata
from collections.abc import Collection

FOLDER_SUFFIX = ".zarr"

_MAX_PART_BYTES = 255  # of one component, on every common file system
_MAX_NAME_BYTES = 1024


class MemberNames:
    """Admits the members of one tarball, in the order in which they come."""

    def __init__(self, expected: Collection[str]) -> None:
        """Start with nothing admitted.

        Args:
            expected: Split files and folders, such as "burgers1d_train.h5".
        """
        self._expected = tuple(expected)
        self._admitted: dict[str, str] = {}
        self._files: set[str] = set()
        self._folders: set[str] = set()

    @property
    def missing(self) -> list[str]:
        """Split files and folders that have not come."""
        return [name for name in self._expected if name not in self._files and name not in self._folders]

    def admit(self, name: str, *, folder: bool) -> None:
        """Note a member.

        Raises:
            ValueError: The name is not allowed, or not beside those admitted before.
        """
        _check_plain(name)
        top, _, below = name.partition("/")
        if top not in self._expected:
            raise ValueError(f"it is none of the dataset's files ({', '.join(self._expected)})")
        is_store = top.endswith(FOLDER_SUFFIX)
        if not below and folder != is_store:
            raise ValueError(f"it must be a {'folder' if is_store else 'file'}")
        if below and not is_store:
            raise ValueError(f"only {FOLDER_SUFFIX} folders have members below them")
        if name in self._files or (name in self._folders and not folder):
            raise ValueError("it comes twice")
        self._claim(name)
        self._note_parents(name)
        (self._folders if folder else self._files).add(name)

    def _claim(self, name: str) -> None:
        """Refuses names that a file system without case or with normalized Unicode takes for one file."""
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = self._admitted.setdefault(folded, name)
        if other != name:
            raise ValueError(f"it differs from {other!r} only in case or Unicode form")

    def _note_parents(self, name: str) -> None:
        """Note the folders above a member; they need no members of their own."""
        parent = name.rpartition("/")[0]
        while parent and parent not in self._folders:
            if parent in self._files:
                raise ValueError(f"{parent!r} is both a file and a folder")
            self._claim(parent)
            self._folders.add(parent)
            parent = parent.rpartition("/")[0]


def _check_plain(name: str) -> None:
    """Refuses names that are not relative POSIX paths of ordinary characters.

    Raises:
        ValueError: Says what is wrong.
    """
    parts = name.split("/")
    if not name.isprintable() or any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("its name has characters that cannot be printed")
    if "\\" in name or ":" in name:
        raise ValueError("its name has a backslash or a colon")
    if name.startswith("/"):
        raise ValueError("its name is absolute")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("its name has an empty part, '.' or '..'")
    if len(name.encode()) > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise ValueError(
            f"its name is longer than {_MAX_PART_BYTES} bytes a part or {_MAX_NAME_BYTES} in all"
        )
