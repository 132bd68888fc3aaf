"""Numbers as people read them."""

from __future__ import annotations

_KIB = 1024


def binary_size(count: int) -> str:
    """A number of bytes, as a multiple of a power of 1024."""
    if count < _KIB:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB"):
        size /= _KIB
        if size < _KIB:
            return f"{size:.1f} {unit}"
    return f"{size / _KIB:.1f} GiB"
