# SPDX-License-Identifier: BSD-3-Clause
"""One process with other codes, other copies, other versions, and reloads: nothing collides.

Each test runs processes of its own, since a process registers operators once.
"""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import resample_layers
from resample_layers.ops import owner

from . import compat_originals
from .tools import require

ROOT = Path(__file__).parent.parent
PACKAGE = Path(resample_layers.__file__).parent
CHECK = """
import importlib, sys, torch

def check(package):
    "Values, gradients of the first and second order, compilation, fakes: by all operators."
    ops = package.ops
    x = torch.arange(12.0).double().reshape(1, 1, 3, 4).sin().requires_grad_()
    k = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    def results(resample, fused):
        out = resample(x, k)
        slopes = torch.autograd.grad(out.pow(3).sum(), (x, k), create_graph=True)
        second = torch.autograd.grad(sum(s.pow(2).sum() for s in slopes), (x, k))
        act = fused(x, k, b)
        return (out, *slopes, *second, act, *torch.autograd.grad(act.pow(2).sum(), (x, k, b)))
    native = lambda x, k: ops.upfirdn2d_native(x, k, 2, 2, 1, 1, 1, 2, 1, 2)
    expected = results(native, lambda x, k, b: ops.fused_leaky_relu(native(x, k), b))
    resample = lambda x, k: ops.upfirdn2d(x, k, 2, 1, (1, 2))
    fused = lambda x, k, b: ops.upfirdn2d_bias_act(x, k, b, None, None, 2, 1, (1, 2))
    for ours, theirs in zip(results(resample, fused), expected):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs)
    with torch._subclasses.FakeTensorMode():
        assert resample(torch.empty(1, 1, 3, 4), torch.empty(3)).shape == expected[0].shape
    compiled = torch.compile(resample, backend="aot_eager", fullgraph=True)(x, k)
    torch.testing.assert_close(compiled, expected[0])
    torch.testing.assert_close(torch.autograd.grad(compiled.pow(3).sum(), (x, k)), expected[1:3])
    flat = package.UpFirDnUpsample()(torch.ones(1, 1, 6, 6))[:, :, 3:-3, 3:-3]
    torch.testing.assert_close(flat, torch.ones(1, 1, 6, 6))
"""


def run(code: str, *arguments: object, folder: Path = ROOT) -> str:
    """What ``code`` prints; it starts with ``check`` defined, and sees packages in ``folder``."""
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", CHECK + code, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "Overriding a previously registered kernel" not in result.stderr
    return result.stdout


def copy(folder: Path, version: str | None = None) -> Path:
    """A folder that holds a copy of the package, of another version where named."""
    shutil.copytree(PACKAGE, folder / "resample_layers", ignore=shutil.ignore_patterns("*.pyc"))
    if version is not None:
        file = folder / "resample_layers" / "version.py"
        text = file.read_text()
        assert resample_layers.__version__ in text
        file.write_text(text.replace(resample_layers.__version__, version))
    return folder


# Names


def test_every_name_is_in_our_namespace():
    """Operators, and modules: the peers' are `upfirdn2d`, `fused`, `op`, `upfirdn2d_ext`, ..."""
    run("""
names = lambda: {(s.name, s.overload_name) for s in torch._C._jit_get_all_schemas()}
before, modules = names(), set(sys.modules)
import resample_layers
new = {name for name, _ in names() - before}
from resample_layers.ops.op import OPS
assert "upfirdn2d" in OPS
assert new == {f"resample_layers::{prefix}{name}" for prefix in ("", "_") for name in OPS}, new
for name in set(sys.modules) - modules:
    root = name.split(".")[0]
    assert root in {"resample_layers", "torch"} | sys.stdlib_module_names, name
""")


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_operators_of_other_namespaces(first):
    """What others may register under the names that they use today, before ours and after."""
    run("""
PEERS = ("upfirdn2d", "fused", "upfirdn2d_ext", "fused_act_ext", "upfirdn2d_plugin",
         "bias_act_plugin", "mmcv", "basicsr")
def ours():
    import resample_layers
    return resample_layers
def theirs():
    kept = []
    for namespace in PEERS:
        library = torch.library.Library(namespace, "DEF")
        for name in ("upfirdn2d", "upfirdn2d_bias_act", "bias_act", "fused_bias_act"):
            library.define(f"{name}(Tensor x) -> Tensor")
            library.impl(name, lambda x: x + 1, "CompositeExplicitAutograd")
        kept.append(library)
    return kept
if sys.argv[1] == "ours":
    package, kept = ours(), theirs()
else:
    kept, package = theirs(), ours()
check(package)
for namespace in PEERS:
    assert getattr(torch.ops, namespace).upfirdn2d(torch.zeros(1)).item() == 1
""", first)  # fmt: skip


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_beside_the_originals(first):
    """rosinality's, BasicSR's, NVIDIA's code: imported, called, and ours still right."""
    peers = compat_originals.require_peers()
    require("requests", found=importlib.util.find_spec("requests") is not None)  # NVIDIA's
    run("""
import warnings
from tests.compat_originals import CALLS, load
if sys.argv[1] == "ours":
    import resample_layers
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    originals = load(sys.argv[2])
    for name in ("rosinality", "basicsr", "nvidia"):
        call = next(c for c in CALLS if c.convention == name and c.function == "upfirdn2d")
        theirs = call.run(originals["ada" if name == "nvidia" else name])
        ours = importlib.import_module(f"resample_layers.compat.{name}")
        torch.testing.assert_close(call.run(vars(ours)), theirs)
import resample_layers
check(resample_layers)
""", first, peers)  # fmt: skip


# Copies and versions


def test_a_second_copy_shares_the_registrations(tmp_path):
    """Under another name, and under the same one after the first was forgotten."""
    copy(tmp_path / "vendor")
    copy(tmp_path / "again")
    run("""
import gc
import resample_layers as first
check(first)
sys.path.insert(0, sys.argv[1])
second = importlib.import_module("vendor.resample_layers")
assert second.__file__ != first.__file__
owner = importlib.import_module("vendor.resample_layers.ops.owner")
assert second.ops.op.OPS["upfirdn2d"].raw is first.ops.op.OPS["upfirdn2d"].raw
assert second.ops.extension.choices is first.ops.extension.choices
check(second)
check(first)
plus = lambda x: x + 1
make = lambda copy: copy.ops.op.Op("late", "(Tensor x) -> Tensor", plus, torch.empty_like)
try:
    make(second)
except ImportError as error:
    assert "got other sources of version" in str(error), error
else:
    raise AssertionError("no error")
for copy in (first, second):  # the owner may register more, and the other shares that, too
    assert make(copy)(torch.zeros(1)) == 1
folder = owner.OWNER.folder
import vendor.resample_layers.info as info
assert f"its operators are those of {folder}" in info.report()
for name in [n for n in sys.modules if "resample_layers" in n]:
    del sys.modules[name]
del first, second, owner, info
gc.collect()
sys.path.insert(0, sys.argv[1] + "/again")
import resample_layers as third
assert third.__file__.startswith(sys.argv[1])
assert third.ops.owner.OWNER.folder == folder
check(third)
""", tmp_path)  # fmt: skip


def test_another_version_is_refused_with_both_paths(tmp_path):
    copy(tmp_path / "other", version="99.0.0")
    run("""
import resample_layers
sys.path.insert(0, sys.argv[1])
try:
    importlib.import_module("other.resample_layers")
except ImportError as error:
    assert str(error) == (
        "a process can hold one version of resample_layers, got version 99.0.0 in "
        f"{sys.argv[1]}/other/resample_layers after version {resample_layers.__version__} in "
        f"{sys.argv[2]}: remove one, or, after an upgrade, start anew"
    ), error
else:
    raise AssertionError("no error")
check(resample_layers)
""", tmp_path.resolve(), PACKAGE.resolve())  # fmt: skip


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("upfirdn2d.py", "bool flip)", "bool flip, bool more)"),
        ("native.py", "# SPDX", "# Another SPDX"),
        ("../geometry.py", "# SPDX", "# Another SPDX"),
        ("../values.py", "# SPDX", "# Another SPDX"),
    ],
    ids=["schema", "text", "geometry", "values"],
)
def test_other_sources_of_the_same_version_are_refused(module, old, new, tmp_path):
    """Kernels of one copy and calls of the other, or two parts of a gradient, would not fit."""
    file = copy(tmp_path / "other") / "resample_layers" / "ops" / module
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    run("""
import resample_layers
sys.path.insert(0, sys.argv[1])
try:
    importlib.import_module("other.resample_layers")
except ImportError as error:
    assert f"got other sources of version {resample_layers.__version__} in {sys.argv[1]}" in str(
        error
    ), error
else:
    raise AssertionError("no error")
check(resample_layers)
""", tmp_path.resolve())  # fmt: skip


def test_the_sources_are_all_that_the_ops_are_made_of():
    """What a module of ops imports from beside the folder counts, too; the version is compared."""
    imported = set()
    for path in (PACKAGE / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                imported |= {node.module} if node.module else {each.name for each in node.names}
    assert imported - {"version"} == {name.removesuffix(".py") for name in owner.SHARED}
    for name in owner.SHARED:  # and they import nothing of the package
        assert "\nfrom ." not in (PACKAGE / name).read_text()


# Reloads


def test_reloads():
    """The package, each of its modules, and all in the order of their imports."""
    run("""
import resample_layers, resample_layers.compat
model = resample_layers.UpFirDnUpsample()
expected = model(torch.ones(1, 1, 4, 4))
choices = resample_layers.ops.extension.choices
importlib.reload(resample_layers)
check(resample_layers)
names = [name for name in sys.modules if name.startswith("resample_layers")]
for name in names:
    importlib.reload(sys.modules[name])
    x = torch.ones(1, 1, 3, 4, requires_grad=True)
    torch.ops.resample_layers.upfirdn2d.default(
        resample_layers.ops.upfirdn2d(x, torch.ones(2)), torch.ones(2), torch.ones(2),
        (1, 1), (1, 1), (0, 0, 0, 0), False).sum().backward()
    assert x.grad.sum() == 32, name
check(resample_layers)
assert resample_layers.ops.extension.choices is choices  # chosen once
assert torch.equal(model(torch.ones(1, 1, 4, 4)), expected)  # made before
""")


def test_another_backend_after_the_first_import_is_refused():
    run("""
import importlib, os

os.environ["RESAMPLE_LAYERS_BACKEND"] = "native"
import resample_layers
from resample_layers.ops import extension

os.environ["RESAMPLE_LAYERS_BACKEND"] = "extension"
try:
    importlib.reload(extension)
except RuntimeError as error:
    assert "RESAMPLE_LAYERS_BACKEND=extension came too late" in str(error), error
else:
    raise AssertionError("no error")
""")
