"""Which packages are there, without importing them."""

from __future__ import annotations

from importlib.util import find_spec


def installed(package: str) -> bool:
    """Whether `package` can be imported. Imports at most the parent of a dotted name."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent is missing
        return False
