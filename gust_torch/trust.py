"""Which code a configuration may name."""

import os

TRUSTED = ("gust_torch", "torch", "lightning", "torch_geometric")
TRUST_ALL = "GUST_TORCH_TRUST_CONFIG"


def restrict_imports() -> None:
    """Let configurations and flags name objects of `TRUSTED` alone, unless GUST_TORCH_TRUST_CONFIG=1."""
    import jsonargparse

    if os.environ.get(TRUST_ALL) != "1":
        jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(TRUSTED))


def check_import(path: str, *, source: str) -> None:
    """Refuse an import path, such as "os.system", that the file `source` may not name, by a ValueError."""
    if path.partition(".")[0] not in TRUSTED and os.environ.get(TRUST_ALL) != "1":
        raise ValueError(untrusted(path, source=source))


def untrusted(path: str, *, source: str) -> str:
    """Say that an import path may not be named, and what to do."""
    allowed = ", ".join(TRUSTED)
    return f"{source}: {path} is not of {allowed}, and importing runs code; set {TRUST_ALL}=1 if you trust it"
