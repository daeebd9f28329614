# SPDX-License-Identifier: BSD-3-Clause
"""Every example in a docstring, the README and docs/ runs and prints what it says."""

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import resample_layers

ROOT = Path(__file__).parent.parent
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(resample_layers.__path__, "resample_layers.")
    if not name.endswith("__main__")
]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
WITH_EXAMPLES = {
    "resample_layers.alias_free",
    "resample_layers.compat.basicsr",
    "resample_layers.compat.mmcv",
    "resample_layers.compat.nvidia",
    "resample_layers.compat.rosinality",
    "resample_layers.filters",
    "resample_layers.layers",
    "resample_layers.ops.activation",
    "resample_layers.ops.dimensions",
    "resample_layers.ops.filtered_act",
    "resample_layers.ops.leaky_relu",
    "resample_layers.ops.native",
    "resample_layers.ops.upfirdn2d",
}


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    importlib.import_module(name)
    import sys

    result = doctest.testmod(sys.modules[name])
    assert not result.failed
    assert result.attempted > 0 or name not in WITH_EXAMPLES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    result = doctest.testfile(str(page), module_relative=False)
    assert not result.failed
    if page.name == "README.md":
        assert result.attempted > 0


def test_public_classes_and_functions_are_documented():
    """Shapes, errors and an example for what people import."""
    for name in ("UpFirDnUpsample", "UpFirDnDownsample", "UpFirDnSmooth"):
        text = getattr(resample_layers, name).__doc__
        for part in ("Args:", "Shape:", "Raises:", "Example:", "Source of the formula:"):
            assert part in text, (name, part)
    for function in (resample_layers.ops.upfirdn2d, resample_layers.ops.upfirdn2d_native):
        for part in ("Shape:", "Raises:", "Example:", "Source of the formula:"):
            assert part in function.__doc__, (function, part)


def test_capabilities_name_tests_that_exist():
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "docs" / "capabilities.md").read_text().splitlines()
        if line.startswith("|") and not line.startswith(("| Capability", "| ---"))
    ]
    assert len(rows) > 30
    for capability, tests, peer in rows:
        named = re.findall(r"`([^`]*)`", tests)
        assert named, capability
        assert peer.strip(), capability
        for name in named:
            path, function = name.split("::")
            tree = ast.parse((ROOT / path).read_text())
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert function in functions, name
            assert function.startswith("test_"), name
