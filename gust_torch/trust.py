"""Which code a configuration may name."""

import os

TRUSTED = ("gust_torch", "torch", "lightning", "torch_geometric")
TRUST_ALL = "GUST_TORCH_TRUST_CONFIG"


def restrict_imports() -> None:
    """Let configurations and flags (`class_path`, `transform`) name objects of `TRUSTED` packages alone.

    Nothing else is imported, let alone called, unless the environment says GUST_TORCH_TRUST_CONFIG=1.
    """
    import jsonargparse

    if os.environ.get(TRUST_ALL) != "1":
        jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(TRUSTED))


def check_import(path: str, *, source: str) -> None:
    """Refuse an import path that a configuration may not name.

    Args:
        path: Such as "gust_torch.PoissonField".
        source: The file that names it, for the message.

    Raises:
        ValueError: It is not of a trusted package.
    """
    if path.partition(".")[0] not in TRUSTED and os.environ.get(TRUST_ALL) != "1":
        raise ValueError(untrusted(path, source=source))


def untrusted(path: str, *, source: str) -> str:
    """Say that an import path may not be named, and what to do."""
    return (
        f"{source}: {path} is not of {', '.join(TRUSTED)}, and importing runs code; set {TRUST_ALL}=1 if you "
        "trust it"
    )
