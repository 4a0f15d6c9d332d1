"""What our command lines show of Lightning; imports neither torch nor Lightning."""

import logging
import os
import sys
import warnings

HINTS = (
    ".*LeafSpec.*",
    ".*exists and is not empty.*",  # where a run continues
    ".*does not have many workers.*",
    ".*The dirpath has changed from.*",  # another run's checkpoint is validated or continued
    ".*Using `DistributedSampler` with the dataloaders.*",  # each sample counts once, see tasks.validation
    ".*smaller than the logging interval.*",
    ".*`srun` command is available.*",
    ".*in eval mode at the start of training.*",  # frozen autoencoders
)
# What mpirun, of any kind, sets for the processes that it starts.
MPI_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS")


def silence_lightning() -> None:
    """Keep Lightning's hints off the terminal; to be called after importing it, which sets the level back.

    Without mpirun, MPI is not started either, just to see that there is none: that takes half a second and
    files that a limited disk has no room for, upon which it ends the process.
    """
    environment = sys.modules.get("lightning.fabric.plugins.environments.mpi")
    if environment is not None and not any(name in os.environ for name in MPI_LAUNCHED):
        environment._MPI4PY_AVAILABLE = False  # type: ignore[attr-defined]
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in HINTS:
        warnings.filterwarnings("ignore", message=message)
