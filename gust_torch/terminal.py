"""What our command lines show of Lightning; imports neither torch nor Lightning."""

import logging
import warnings

HINTS = (
    ".*LeafSpec.*",
    ".*exists and is not empty.*",  # where a run continues
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*`srun` command is available.*",
    ".*in eval mode at the start of training.*",  # frozen autoencoders
)


def silence_lightning() -> None:
    """Keep Lightning's hints off the terminal; to be called after importing it, which sets the level back."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in HINTS:
        warnings.filterwarnings("ignore", message=message)
