"""Dedalus, imported without its side effects on logging and with reproducible transforms.

Importing this module fails with ImportError where Dedalus is missing; nothing else in the package imports
Dedalus.
"""

import importlib
import logging
from typing import Any


def _import_dedalus() -> Any:
    """Return the module `dedalus.public`.

    Dedalus puts a handler on the root logger when it is imported, which doubles every line of a program that
    has its own; it is taken off again. FFTW plans are made by estimate: measured plans differ from process to
    process, and with them the last digits, so that a continued run would not repeat an uninterrupted one.
    They are no faster here.
    """
    handlers, level = list(logging.root.handlers), logging.root.level
    config = importlib.import_module("dedalus.tools.config").config
    config["transforms-fftw"]["PLANNING_RIGOR"] = "estimate"
    config["parallelism-fftw"]["PLANNING_RIGOR"] = "estimate"
    public = importlib.import_module("dedalus.public")
    logging.root.handlers[:] = handlers
    logging.getLogger("subsystems").setLevel(logging.WARNING)  # a dozen lines on building matrices
    logging.root.setLevel(level)
    return public


d3 = _import_dedalus()
_matsolvers = importlib.import_module("dedalus.libraries.matsolvers")


class SmallSupernodeLU(_matsolvers.SuperluColamdFactorizedTranspose):  # type: ignore[name-defined]
    """SuperLU with the supernode relaxation off.

    The matrices are narrow bands with a few full rows; merging their columns into supernodes only stores
    zeros. At 256x64: 0.93 instead of 1.28 million factor entries, and solves in 0.55 of the time.
    """

    relax = 1
    panel_size = 1
