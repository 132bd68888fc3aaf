"""What a person writes for a model: a path, or a URL; and what of a URL may be shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeGuard

# A scheme has two letters at least: `C:\` is a drive of Windows.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# `user:password@`, also where the password holds a slash, but not the `@` of a path behind a port.
_SECRETS = re.compile(r"(?<=://)(?:[^\s/'\"]*:(?!\d+/)[^\s'\"]*@|[^\s/'\"]*@)|(?<=\?)[^\s'\"]+(?=[\s'\"]|$)")


def is_url(model: object) -> TypeGuard[str]:
    """Whether this is the URL of a model elsewhere."""
    return isinstance(model, str) and scheme(model) not in {"", "file"}


def located(text: str) -> str | Path:
    """What a person wrote: a URL as it is, anything else as a path, `file://` included."""
    if scheme(text) == "file":
        from urllib.parse import urlsplit  # noqa: PLC0415  # slow, and few write file://
        from urllib.request import url2pathname  # noqa: PLC0415  # as above

        parts = urlsplit(text)
        host = "" if parts.netloc in {"", "localhost"} else f"//{parts.netloc}"
        return Path(url2pathname(host + parts.path))
    return text if is_url(text) else Path(text)


def shown(text: str) -> str:
    """A text with the passwords and queries of its URLs made unreadable."""
    return _SECRETS.sub("***", text) if "://" in text else text


def scheme(text: str) -> str:
    """The scheme of a URL, in small letters; empty for anything else."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""
