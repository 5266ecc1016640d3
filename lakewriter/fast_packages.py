"""The packages of the extra `fast` that read streams, and which of them are used.

Each is used if it is installed. `LAKEWRITER_FAST` names those to use instead, as in
`picows,uvloop`, or says `off`.
"""

import importlib
import os
from types import ModuleType
from urllib.request import getproxies

from lakewriter.errors import UsageError

VARIABLE = "LAKEWRITER_FAST"

# The packages, and the beginning of their versions that are known to work.
_PACKAGES = {"picows": "2.", "uvloop": "0."}


def fast_package(name: str) -> ModuleType | None:
    """Import a package of the extra; return None if it is not to be used, or cannot be.

    Raises:
        UsageError: if the variable names an unknown package.
    """
    if name not in _wanted():
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return module if _version(module).startswith(_PACKAGES[name]) else None


def loop_package() -> ModuleType | None:
    """Import uvloop, as `fast_package` does; return None behind a proxy.

    uvloop tries the addresses of a proxy one after the other, and the first one may be dead.
    """
    return None if _names_proxy() else fast_package("uvloop")


def used_versions() -> list[str]:
    """Return the name and the version of each package that a recorder uses.

    Raises:
        UsageError: if the variable names an unknown package.
    """
    used = []
    if (picows := fast_package("picows")) is not None:
        # `no_proxy` may name some hosts of streams.
        where = " for hosts without a proxy" if _names_proxy() else ""
        used.append(f"picows {_version(picows)}{where}")
    if (uvloop := loop_package()) is not None:
        used.append(f"uvloop {_version(uvloop)}")
    return used


def _names_proxy() -> bool:
    """Return whether the environment names a proxy, for whatever addresses."""
    return not getproxies().keys() <= {"no"}


def _version(module: ModuleType) -> str:
    return str(getattr(module, "__version__", ""))


def _wanted() -> set[str]:
    value = os.environ.get(VARIABLE, "").strip()
    if not value:
        return set(_PACKAGES)
    if value == "off":
        return set()
    names = {name.strip() for name in value.split(",")}
    if unknown := sorted(names - set(_PACKAGES)):
        known = ", ".join(_PACKAGES)
        raise UsageError(f"{VARIABLE}: {unknown[0]!r} is none of {known}", f"export {VARIABLE}=off")
    return names
