# SPDX-License-Identifier: BSD-3-Clause
"""Who registered the operators of this process: it happens once.

Torch keeps one table of operators for a process. A reload of this package, and another copy of
the same sources, use what is registered already; another version, or other sources, refuse to be
imported.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..version import __version__

NAMESPACE = "resample_layers"
FOLDER = str(Path(__file__).resolve().parent.parent)


class Owner(NamedTuple):
    """The copy of the package that made the registrations of this process, and what it holds.

    It stands at ``torch.ops.resample_layers.owner``, where other copies look for it.
    """

    version: str
    folder: str  # of the package
    sources: str  # a digest of the modules beside this one
    schemas: dict[str, str]  # of each op, by its name
    library: torch.library.Library  # the registrations live as long as this does
    choices: dict[str, Any]  # extension.py keeps its choices here
    deferred: dict[str, Any]  # and here what it has not chosen yet


def _find_owner() -> Owner | None:
    """The owner, None if there is none yet.

    Raises:
        ImportError: if it is of another version, or, in another folder, of other sources.
    """
    owner: Owner | None = getattr(torch.ops.resample_layers, "owner", None)
    if owner is None:
        return None
    if owner.version != __version__:
        raise _another(f"version {__version__} in {FOLDER} after version {owner.version}", owner)
    if owner.folder != FOLDER and owner.sources != _sources():
        raise _other_sources(owner)
    return owner


def _another(found: str, owner: Owner) -> ImportError:
    return ImportError(
        f"a process can hold one version of resample_layers, got {found} in {owner.folder}: "
        "remove one, or, after an upgrade, start anew"
    )


def _other_sources(owner: Owner) -> ImportError:
    return _another(f"other sources of version {__version__} in {FOLDER} after those", owner)


def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _new_owner() -> Owner:
    try:
        library = torch.library.Library(NAMESPACE, "DEF")
    except RuntimeError as error:  # of a copy that has no owner, or is being imported by a thread
        raise ImportError(
            f"a process can hold one copy of resample_layers, got {FOLDER} after or beside "
            f"another one: {str(error).splitlines()[0]}"
        ) from error
    return Owner(__version__, FOLDER, _sources(), {}, library, {}, {})


_found = _find_owner()
OWNER = _found or _new_owner()


def claim(name: str, schema: str) -> bool:
    """Whether the op must be registered now: False where the owner has done it.

    Raises:
        ImportError: if the owner's op of this name has another schema, or there is none.
    """
    if _found is None:
        OWNER.schemas[name] = schema
        return True
    if OWNER.schemas.get(name) != schema:
        raise _other_sources(OWNER)
    return False


def publish() -> None:
    """Show the owner to other copies, when all ops of the package are registered."""
    vars(torch.ops.resample_layers)["owner"] = OWNER
