"""What a run depends on besides its arguments: Python, the machine, and the packages that bnfold uses."""

from __future__ import annotations

import os
import platform
from importlib import metadata

# What pyproject.toml asks for; of the two onnxruntime distributions a platform needs one.
PACKAGES = (
    "jinja2",
    "ml-dtypes",
    "numpy",
    "onnx",
    "onnx-graphsurgeon",
    "onnxruntime",
    "onnxruntime-gpu",
    "rich",
    "typer",
)


def environment() -> dict[str, str]:
    """Versions by name; packages that are not installed are left out."""
    versions = {"python": python(), "platform": system()}
    versions.update((name, found) for name in PACKAGES if (found := version(name)) is not None)
    return versions


def python() -> str:
    """Version and implementation."""
    return f"{platform.python_version()} ({platform.python_implementation()})"


def system() -> str:
    """Operating system, release and processor family."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def available_cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def version(distribution: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
