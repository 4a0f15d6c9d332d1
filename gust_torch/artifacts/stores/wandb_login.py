"""Finds out whether W&B can be used, without importing it and without reading a secret's value."""

import netrc
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

_DEFAULT_SERVER = "https://api.wandb.ai"
_FORBIDDEN = re.compile(r"[/\\#?%:<>\s]")  # W&B's rule for projects and entities, and white space
_MAX_LENGTH = 128


def offline_mode() -> bool:
    """Whether WANDB_MODE asks for runs that are kept on this machine.

    Raises:
        ValueError: It switches W&B off altogether.
    """
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "disabled":
        raise ValueError("WANDB_MODE=disabled would drop the upload; unset it, or set WANDB_MODE=offline")
    return mode in ("offline", "dryrun")


def check_place(name: str, what: str) -> None:
    """Check the name of a W&B project or entity.

    Raises:
        ValueError: It is empty, too long, or has characters that W&B refuses.
    """
    if not name or len(name) > _MAX_LENGTH or _FORBIDDEN.search(name):
        raise ValueError(
            f"the W&B {what} {name!r} must have 1 to {_MAX_LENGTH} characters without spaces and any of "
            rf"/\#?%:<>; correct --{what} or WANDB_{what.upper()}"
        )


def check_login() -> None:
    """Check that there is a login; whether the server accepts it is seen later.

    Raises:
        ValueError: There is none.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _DEFAULT_SERVER).netloc.rpartition("@")[2]
    if not _in_netrc(host):
        raise ValueError(
            f"no W&B login for {host}; run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline to "
            "keep the run on this machine"
        )


def _in_netrc(host: str) -> bool:
    """Whether the netrc file, at NETRC or in the home folder, has an entry for a host."""
    given = os.environ.get("NETRC")
    candidates = [Path(given).expanduser()] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return False
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except netrc.NetrcParseError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: {error.msg}; correct it or run `wandb login`"
        ) from None
