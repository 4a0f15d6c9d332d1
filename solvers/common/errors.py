"""What a command line prints of an error: one line that ends with what to do."""

import errno

REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.EROFS: "choose a place that can be written to",
    errno.EEXIST: "a file is in the way, choose another folder",
    errno.ENOTDIR: "a file is in the way, choose another folder",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
}


def one_line(error: Exception) -> str:
    """The message of an error on one line.

    An error straight from the operating system, "[Errno 13] Permission denied: 'x'", becomes "x: permission
    denied; choose a place that you may use". Of one in a reading process, what follows its traceback is kept.
    """
    if isinstance(error, OSError) and error.strerror and (error.filename or error.errno in REMEDIES):
        remedy = REMEDIES.get(error.errno or 0, "check the path and the disk")
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}; {remedy}"
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
