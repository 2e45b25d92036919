"""What installed packages add: objects behind names, found through entry points and loaded when a name is asked for."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class PluginError(ValueError):
    """An installed package whose entry point cannot be used: one line that names the package."""


def names(group: str, own: Collection[str] = ()) -> list[str]:
    """Names that installed packages register in a group, those in ``own`` left out: a name of fpsim's stays fpsim's.

    Examples
    --------
    >>> names("fpsim.no_such_group")
    []
    """
    return sorted({entry.name for entry in entry_points(group=group)} - set(own))


def load(group: str, name: str) -> tuple[Any, str]:
    """The object behind a name, and the package and version it comes from.

    Raises
    ------
    KeyError
        No package registers the name.
    PluginError
        Two packages register it, or importing it fails.
    """
    found = {(_package(entry), entry.value): entry for entry in entry_points(group=group, name=name)}
    if not found:
        raise KeyError(name)
    if len(found) > 1:
        who = " and ".join(f"{package} ({value})" for package, value in sorted(found))
        raise PluginError(f"{name!r} is registered twice in {group}: by {who}; uninstall one of them")
    (((package, value), entry),) = found.items()
    try:
        return entry.load(), package
    except Exception as error:  # whatever the package's own code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"{name!r} of package {package} ({value}) cannot be loaded: {reason}") from error


def claims(group: str, own: Collection[str]) -> list[str]:
    """A line for each package that registers a name of fpsim's own, which it does not get."""
    found = [entry for entry in entry_points(group=group) if entry.name in own]
    return sorted({f"{_package(entry)} registers {entry.name!r} too, which stays fpsim's own" for entry in found})


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "(unknown)"
