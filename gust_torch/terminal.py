"""What our command lines show of Lightning; imports neither torch nor Lightning."""

import logging
import warnings

HINTS = (".*LeafSpec.*", ".*does not have many workers.*", ".*smaller than the logging interval.*")


def silence_lightning() -> None:
    """Keep Lightning's hints off the terminal; to be called after importing it, which sets the level back."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in HINTS:
        warnings.filterwarnings("ignore", message=message)
