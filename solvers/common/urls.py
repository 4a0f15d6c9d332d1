"""URLs where people can read them: without what may be a secret."""

import re

# Of what pathlib has seen ("https:/host/...") only the schemes that carry logins count.
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]+://|(?:https?|ftp|s3|gs):/)"
_CHAINED = rf"(?:::{_SCHEME})"  # "zip://a.h5::https://host/a.zip"
_PORT = r"\d{2,5}(?:/|$)"
# In the host; or behind it, where a password has a slash, a "?" or a "#" in it.
_LOGIN = rf"[^/?#\s]*@|[^/\s@:]*(?!{_CHAINED}):(?!{_PORT})(?:(?!{_CHAINED})\S)*@"
_QUERY = rf"[?#](?:(?!{_CHAINED})[^\s'\"<>])*?(?=[,;:.)]*(?:[\s'\"<>]|$|{_CHAINED}))"
_URL = re.compile(
    rf"(?P<scheme>{_SCHEME})(?:{_LOGIN})?(?P<place>(?:(?!{_CHAINED})[^\s?#])*)(?:{_QUERY})?", re.IGNORECASE
)


def redact(text: str) -> str:
    """Take logins (`user:password@`), queries and fragments out of all URLs in a text.

    For whatever is shown or stored: a signed URL is a key to the data. Paths and other words stay as they
    are.

    >>> redact("https://me:secret@host/a.h5?signature=1: no such file")
    'https://host/a.h5: no such file'
    """
    return _URL.sub(r"\g<scheme>\g<place>", text)
