# SPDX-License-Identifier: BSD-3-Clause
"""Python sources as the command reads them: what imports name, and what names are bound."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Any

UNREADABLE = OSError, SyntaxError, ValueError, LookupError, RecursionError, MemoryError
Parts = tuple[str, ...]  # of a dotted name, or of a path from the root


def parse(code: bytes | str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler thinks of other people's code
        return ast.parse(code)


def base_of(home: Parts, node: Any) -> Parts:
    """What an import in the folder ``home`` imports from; nothing for ``import a``."""
    inside, level = getattr(node, "module", None), getattr(node, "level", 0)
    above = home[: len(home) - level + 1] if level else ()
    return above + (tuple(inside.split(".")) if inside else ())


def walk_top(module: ast.Module) -> Iterator[ast.AST]:
    """The nodes of a module that are in no function and in no class."""
    nodes: list[ast.AST] = [module]
    for node in nodes:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            nodes.extend(ast.iter_child_nodes(node))


def bound_names(node: Any) -> list[str]:
    """The names that a node binds, without the nodes in it."""
    if isinstance(node, ast.alias):
        return [] if node.name == "*" else [node.asname or node.name.split(".")[0]]
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    names = getattr(node, "name", None), getattr(node, "arg", None)  # a definition, an argument
    return [name for name in names if name and not isinstance(node, ast.keyword)]


def read(node: Any) -> list[str]:
    """The names that ``a.b.c``, ``getattr(a.b, "c")`` or ``hasattr(a.b, "c")`` reads.

    One empty name for other nodes.
    """
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Store):
        return chain(node)
    readers = ["getattr"], ["hasattr"]
    if isinstance(node, ast.Call) and chain(node.func) in readers and len(node.args) == 2:
        owner, name = node.args
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return [*chain(owner), name.value]
    return [""]


def chain(node: Any) -> list[str]:
    """The names in ``a.b.c``; the first is empty where no name begins the expression."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *names]
