"""Where a packaged data set lies: a W&B artifact, or a URL that fsspec reads."""

import os
import re

from solvers.common.urls import redact

LOCAL = ("file", "local")
# Accepted without asking fsspec, whose import takes longer than a fetch with nothing to do.
_COMMON_SCHEMES = (*LOCAL, "s3", "s3a", "gs", "http", "https", "hf")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_WANDB = re.compile(r"(?:[A-Za-z0-9_.-]+/){0,2}[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+")
_WANDB_FORM = "entity/project/name:version or name:version"


def is_url(reference: str) -> bool:
    """Whether a reference is a URL rather than a W&B artifact."""
    return "://" in reference


def reference_problem(reference: str) -> str | None:
    """Say what is wrong with a reference, to be put behind its key in a sentence; None if nothing is."""
    if is_url(reference) and (text := _secret_problem(reference)) is not None:
        return text
    if re.search(r"[<>]", reference):
        return (
            f"is {reference!r}, a placeholder; put in the reference that scripts/upload_artifact.py printed"
        )
    if not reference or re.search(r"[\s\x00-\x1f]", reference):
        return f"is {reference!r}, expected text without spaces; {_WANDB_FORM}, or a URL"
    if is_url(reference):
        return url_problem(reference) or _file_problem(reference)
    if _WANDB.fullmatch(reference):
        return None
    if ":" not in reference:
        return f"is {reference!r} without a version, expected {_WANDB_FORM}; a file is a URL: file:///..."
    return f"is {reference!r}, expected {_WANDB_FORM}, or a URL (file:///..., s3://bucket/...)"


def url_problem(url: str) -> str | None:
    """Say what is wrong with the URL of a file or folder, to be put behind a word for it; None if nothing
    is."""
    if (text := _secret_problem(url)) is not None:
        return text
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if "::" in url or ".." in path.split("/"):
        return f"is {url!r}, expected a plain URL without '..', '::', '?' and '#'"
    if not _SCHEME.fullmatch(scheme):
        return f"is {url!r}, expected a scheme in lower case, as in file:///folder or s3://bucket/folder"
    if scheme in LOCAL and (host or not rest):
        return f"is {url!r}, expected an absolute path behind file://, as in file:///data/store"
    if scheme not in LOCAL and not host:
        return f"is {url!r}, expected a bucket or host behind {scheme}://"
    return None


def _secret_problem(url: str) -> str | None:
    """Look for a login or a query: they would stay in the registry, and are not repeated here."""
    scheme, _, rest = url.partition("://")
    login, at, _ = rest.rpartition("@")
    http = scheme.lower().startswith("http")
    # A password may have a slash in it, as keys of S3 often do.
    if at and scheme.lower() not in LOCAL and (":" in login or (http and "/" not in login)):
        return (
            "has a password in it; take it out, credentials come from the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3)"
        )
    if re.search("[?#]", url):
        return f"is {redact(url)!r} with a query, expected a plain URL without '..', '::', '?' and '#'"
    return None


def _file_problem(url: str) -> str | None:
    """Say what is wrong with a URL as that of a file whose scheme may be unknown."""
    scheme, _, rest = url.partition("://")
    if url.endswith("/") or "/" not in rest:
        return f"is {url!r}, expected the URL of a file (file:///folder/NAME.tar.gz, s3://bucket/NAME.tar.gz)"
    if scheme not in _COMMON_SCHEMES:
        from fsspec.registry import available_protocols

        if scheme not in available_protocols():
            return f"is {url!r}: no file system is known for {scheme}://; correct it (file, s3, gs, https)"
    return None


def expand_reference(reference: str, *, entity: str | None = None, project: str | None = None) -> str:
    """Full form of a W&B reference; a URL stays as it is.

    Args:
        reference: `name:version`, `project/name:version`, `entity/project/name:version` or a URL.
        entity: Used where the reference has none; default WANDB_ENTITY.
        project: Likewise; default WANDB_PROJECT.

    Returns:
        `entity/project/name:version`, or the URL.

    Raises:
        ValueError: The reference is malformed, or its entity or project is known from nowhere.
    """
    if (text := reference_problem(reference)) is not None:
        raise ValueError(f"artifact {text}")
    if is_url(reference):
        return reference
    *given, name = reference.split("/")
    owner = given[0] if len(given) == 2 else entity or os.environ.get("WANDB_ENTITY")
    place = given[-1] if given else project or os.environ.get("WANDB_PROJECT")
    missing = [word for word, value in (("entity", owner), ("project", place)) if not value]
    if missing:
        flags = " and ".join(f"--{word} (or WANDB_{word.upper()})" for word in missing)
        raise ValueError(f"{reference}: the W&B {' and '.join(missing)} is not known; give {flags}")
    return f"{owner}/{place}/{name}"
