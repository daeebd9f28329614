# SPDX-License-Identifier: BSD-3-Clause
"""The types that users see. mypy and pyright read ``typed_usage.py`` in ``make lint``."""

import ast
import inspect
from pathlib import Path

import pytest
import torch

import resample_layers
from resample_layers import compat, filters, geometry, ops

from . import typed_usage
from .test_public_calls import public

MODULES = [resample_layers, ops, filters, geometry, compat]
MODULES += [getattr(compat, name) for name in compat.__all__]
SOURCES = sorted(Path(resample_layers.__file__).parent.rglob("*.py"))


def test_the_typed_usage_names_every_public_name():
    tree = ast.parse(inspect.getsource(typed_usage))
    used = {
        (node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute))
    }
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                for alias in node.names}  # fmt: skip
    for module in MODULES:
        last = module.__name__.rpartition(".")[2]
        names = {*getattr(module, "__all__", ()), *public(module, "")}
        missing = {name for name in names if (last, name) not in used} - imported
        assert names
        assert not missing, f"tests/typed_usage.py does not use {missing} of {module.__name__}"


def test_the_typed_usage_runs():
    with torch.no_grad():
        typed_usage.main()


def declared() -> list[tuple[str, str, ast.ClassDef]]:
    """What classes declare for type checkers alone: (class, method, class's tree)."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                blocks = [b for b in node.body if isinstance(b, ast.If)]
                found += [
                    (node.name, method.name, node)
                    for block in blocks
                    if ast.unparse(block.test) == "TYPE_CHECKING"
                    for method in block.body
                    if isinstance(method, ast.FunctionDef)
                ]
    return found


@pytest.mark.parametrize(
    ("name", "method", "tree"), declared(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_what_is_declared_has_the_arguments_of_forward(name, method, tree):
    methods = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    ours, forward = methods[method], methods["forward"]
    for function in ours, forward:
        function.args.args.pop(0)  # self, cls and ctx
    assert ast.unparse(ours.args) == ast.unparse(forward.args)
    assert ast.unparse(ours.returns) == ast.unparse(forward.returns)


def test_every_forward_is_declared():
    """A module of the package whose call would be Any, or a Function whose apply would be."""
    methods = {(name, method) for name, method, _ in declared()}
    kinds = {torch.nn.Module: "__call__", torch.autograd.Function: "apply"}
    for module in MODULES:
        for name, value in public(module, "").items():
            for kind, method in kinds.items():
                if inspect.isclass(value) and issubclass(value, kind):
                    bases = {base.__name__ for base in value.__mro__}
                    assert any((base, method) in methods for base in bases), name
