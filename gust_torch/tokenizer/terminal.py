"""What a command line shows of errors and of Lightning; imports neither torch nor Lightning."""

from __future__ import annotations

import logging
import warnings

__all__ = ["one_line", "silence_lightning"]


def one_line(error: ValueError | OSError) -> str:
    """Shorten a message to one line; of an error in a reading process, keep the part after its traceback."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def silence_lightning() -> None:
    """Keep Lightning's hints off the terminal; for command lines. Importing it sets the level back."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (".*LeafSpec.*", ".*does not have many workers.*"):
        warnings.filterwarnings("ignore", message=message)
