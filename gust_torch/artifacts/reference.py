"""Where a packaged data set lies: a W&B artifact, or a URL that fsspec reads."""

import os
import re

from solvers.common.urls import redact

LOCAL = ("file", "local")
_WANDB = re.compile(r"(?:[A-Za-z0-9_.-]+/){0,2}[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+")
_FORM = "expected entity/project/name:version, name:version, or a URL (file:///..., s3://bucket/...)"


def reference_problem(reference: str) -> str | None:
    """Say what is wrong with a reference, to be put behind its key in a sentence; None if nothing is."""
    if "://" in reference and (text := url_problem(reference, is_file=True)):
        return text
    if re.search(r"[<>]", reference):
        return (
            f"is {reference!r}, a placeholder; put in the reference that scripts/upload_artifact.py printed"
        )
    if not reference or re.search(r"[\s\x00-\x1f]", reference):
        return f"is {reference!r}, expected text without spaces; {_FORM}"
    if "://" in reference or _WANDB.fullmatch(reference):
        return None
    return f"is {reference!r}{'' if ':' in reference else ' without a version'}, {_FORM}"


def url_problem(url: str, *, is_file: bool = False) -> str | None:
    """Say what is wrong with the URL of a folder, or of a file, as `reference_problem` does."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    is_local = scheme.lower() in LOCAL
    login, at, _ = rest.rpartition("@")
    # A password may have a slash in it, as keys of S3 often do.
    in_host = scheme.lower().startswith("http") and "/" not in login
    if at and not is_local and (":" in login or in_host):
        return "has a password in it; take it out, credentials come from the environment (AWS_ACCESS_KEY_ID)"
    is_plain = re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and not re.search(r"[?#]|::", url)
    has_place = (
        bool(host) != is_local and (slash or not is_local) and not (is_file and path[-1:] in ("", "/"))
    )
    if is_plain and has_place and ".." not in path.split("/"):
        return None
    return (
        f"is {redact(url)!r}, expected a plain URL such as file:///data/NAME.tar.gz or "
        f"s3://bucket/NAME.tar.gz{'' if is_file else ', or of their folder'}, without '..', '::', '?' and '#'"
    )


def expand_reference(reference: str, *, entity: str | None = None, project: str | None = None) -> str:
    """Full form `entity/project/name:version` of a W&B reference; a URL stays as it is.

    Args:
        reference: `name:version`, `project/name:version`, `entity/project/name:version` or a URL.
        entity: Used where the reference has none; default WANDB_ENTITY.
        project: Likewise; default WANDB_PROJECT.

    Raises:
        ValueError: The reference is malformed, or its entity or project is known from nowhere.
    """
    if text := reference_problem(reference):
        raise ValueError(f"artifact {text}")
    if "://" in reference:
        return reference
    *given, name = reference.split("/")
    owner = given[0] if len(given) == 2 else entity or os.environ.get("WANDB_ENTITY")
    place = given[-1] if given else project or os.environ.get("WANDB_PROJECT")
    missing = [word for word, value in (("entity", owner), ("project", place)) if not value]
    if missing:
        flags = " and ".join(f"--{word} (or WANDB_{word.upper()})" for word in missing)
        raise ValueError(f"{reference}: the W&B {' and '.join(missing)} is not known; give {flags}")
    return f"{owner}/{place}/{name}"
