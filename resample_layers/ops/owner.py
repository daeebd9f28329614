# SPDX-License-Identifier: BSD-3-Clause
"""Who registered the operators of this process: it happens once.

Torch keeps one table of operators for a process. A reload of this package, and another copy of
the same sources, use what is registered already; another version, or other sources, refuse to be
imported.

Ctrl-C may stop an import anywhere, and the next one goes on. An op is registered wholly or counts
as not registered: what the stopped import has left of it is dropped before it is registered anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..version import __version__

NAMESPACE = "resample_layers"
FOLDER = str(Path(__file__).resolve().parent.parent)
SHARED = ("geometry.py", "values.py")  # modules outside of ops that its modules import


@dataclass
class Owner:
    """The copy of the package that makes the registrations of this process, and what it holds.

    It stands at ``torch.ops.resample_layers.owner``, where other copies look for it.
    """

    version: str
    folder: str  # of the package
    sources: str  # a digest of the modules that the ops are made of
    is_complete: bool = False  # all ops of the package are registered
    schemas: dict[str, str] = field(default_factory=dict)  # of each registered op, by its name
    # The registrations live as long as these do, one for each op, by its name
    libraries: dict[str, torch.library.Library] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)  # extension.py keeps its choices here
    deferred: dict[str, Any] = field(default_factory=dict)  # and here what it has not chosen yet


def _find_owner() -> Owner:
    """The owner; this copy becomes it where there is none.

    Raises:
        ImportError: if the owner is of another version, or, in another folder, of other sources or
            not yet imported.
    """
    names = vars(torch.ops.resample_layers)
    owner: Owner | None = names.get("owner")
    if owner is None:
        owner = names["owner"] = Owner(__version__, FOLDER, _sources())
    if owner.version != __version__:
        raise _another(f"version {__version__} in {FOLDER} after version {owner.version}", owner)
    if owner.folder != FOLDER and owner.sources != _sources():
        raise _other_sources(owner)
    if owner.folder != FOLDER and not owner.is_complete:  # a thread imports it, or was stopped
        raise _another(f"{FOLDER} beside one whose import has not ended,", owner)
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
    for path in (*sorted(Path(__file__).parent.glob("*.py")), *(Path(FOLDER) / m for m in SHARED)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


OWNER = _find_owner()


def claim(name: str, schema: str) -> torch.library.Library | None:
    """Where to register an op whose operators ``name`` and ``_name`` are now defined.

    Call :func:`settle` when it is registered. None: the owner has registered it. The owner may
    register more ops when the package is complete; a copy in another folder registers none.

    Raises:
        ImportError: if the owner's op of this name has another schema, or a copy in another folder
            finds none, or someone else has defined an operator of this name.
    """
    if name in OWNER.schemas or OWNER.folder != FOLDER:
        if OWNER.schemas.get(name) != schema:
            raise _other_sources(OWNER)
        return None
    _drop(name)
    library = OWNER.libraries[name] = torch.library.Library(NAMESPACE, "FRAGMENT")
    try:
        for full in (name, f"_{name}"):
            library.define(full + schema, tags=(torch.Tag.pt2_compliant_tag,))
    except RuntimeError as error:  # of a copy that has no owner
        raise ImportError(
            f"a process can hold one copy of resample_layers, got {FOLDER} after another one: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return library


def settle(name: str, schema: str) -> None:
    """An op that was claimed is registered, with all its rules."""
    OWNER.schemas[name] = schema


def publish() -> None:
    """Let other copies use the owner's ops, when all ops of the package are registered."""
    OWNER.is_complete = True


def _drop(name: str) -> None:
    """Take back what a stopped import has registered of an op, wherever it was stopped."""
    library = OWNER.libraries.get(name)
    if library is None:
        return
    # Torch keeps fakes and rules of dispatch modes apart from the library, which may not know yet
    # of the last one. Where a newer torch keeps them is not known: then they stay
    try:
        from torch._library import simple_registry

        rules = simple_registry.singleton._data
    except (ImportError, AttributeError):
        rules = {}
    for full in (name, f"_{name}"):
        rules.pop(f"{NAMESPACE}::{full}", None)
        library._op_defs.add(f"{NAMESPACE}::{full}")
    library._destroy()
    del OWNER.libraries[name]
