"""Where a packaged data set lies: a W&B artifact, or a URL that fsspec reads."""

import os
import re

from solvers.common.urls import redact

LOCAL = ("file", "local")
_COMMON = (*LOCAL, "s3", "gs", "http", "https")
_WANDB = re.compile(r"(?:[A-Za-z0-9_.-]+/){0,2}[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+")


def reference_problem(reference: str) -> str | None:
    """Say what is wrong with a reference, to be put behind its key in a sentence; None if nothing is."""
    is_url = "://" in reference
    if is_url and (text := url_problem(reference, is_file=True)):
        return text
    if re.search(r"[<>]", reference):
        return f"is {reference!r}, a placeholder; put in the reference that the upload printed"
    if is_url and not re.search(r"[\s\x00-\x1f]", reference):
        return _scheme_problem(reference.partition("://")[0])
    if _WANDB.fullmatch(reference):
        return None
    lacks = "" if ":" in reference else " without a version"
    return f"is {reference!r}{lacks}, expected entity/project/name:version, or a URL, without spaces"


def url_problem(url: str, *, is_file: bool = False) -> str | None:
    """Say what is wrong with the URL of a folder, or of a file, as `reference_problem` does."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    is_local = scheme.lower() in LOCAL
    login, at, _ = rest.rpartition("@")
    # A password may have a slash in it, as keys of S3 often do.
    if at and not is_local and (":" in login or (scheme.lower().startswith("http") and "/" not in login)):
        return "has a password in it; take it out, credentials come from the environment"
    is_plain = re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and not re.search(r"[?#]|::", url)
    has_place = (slash and not host if is_local else host) and not (is_file and path[-1:] in ("", "/"))
    if is_plain and has_place and ".." not in path.split("/"):
        return None
    examples = "file:///data/x.tar.gz or s3://bucket/x.tar.gz" if is_file else "file:///data or s3://bucket"
    return f"is {redact(url)!r}, expected a plain URL such as {examples}, without '..', '::', '?' and '#'"


def _scheme_problem(scheme: str) -> str | None:
    if scheme not in _COMMON:
        from fsspec.registry import available_protocols  # takes its time

        if scheme not in available_protocols():
            return f"has the unknown scheme {scheme}://; correct it ({', '.join(_COMMON)}, ...)"
    return None


def expand_reference(reference: str, *, entity: str | None = None, project: str | None = None) -> str:
    """Complete a W&B reference to `entity/project/name:version`; a URL stays as it is.

    What it lacks comes from `entity` and `project`, or else WANDB_ENTITY and WANDB_PROJECT; a ValueError
    says that it is known from nowhere, or that the reference is malformed.
    """
    if text := reference_problem(reference):
        raise ValueError(f"artifact {text}")
    if "://" in reference:
        return reference
    *given, name = reference.split("/")
    owner = given[0] if len(given) == 2 else entity or os.environ.get("WANDB_ENTITY")
    place = given[-1] if given else project or os.environ.get("WANDB_PROJECT")
    if missing := [word for word, value in (("entity", owner), ("project", place)) if not value]:
        flags = " and ".join(f"--{word} (or WANDB_{word.upper()})" for word in missing)
        raise ValueError(f"{reference}: the W&B {' and '.join(missing)} is not known; give {flags}")
    return f"{owner}/{place}/{name}"
