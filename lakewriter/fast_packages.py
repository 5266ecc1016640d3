"""The packages of the extra `fast` that read streams, and which of them are used.

Each is used if it is installed. `LAKEWRITER_FAST` names those to use instead, as in
`picows,uvloop`, or says `off`.
"""

import importlib
import os
from types import ModuleType

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


def used_versions() -> list[str]:
    """Return the name and the version of each package that is used.

    Raises:
        UsageError: if the variable names an unknown package.
    """
    modules = {name: fast_package(name) for name in _PACKAGES}
    return [f"{name} {_version(module)}" for name, module in modules.items() if module is not None]


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
