# SPDX-License-Identifier: BSD-3-Clause
"""CONTRIBUTING's steps for an op, followed for a small one in a copy of the package.

The op is ``product``, ``input * weight * gain``: bilinear, so that its gradient has gradients of
its own. It has no compiled kernel, and the others keep theirs.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import resample_layers
from resample_layers.ops import extension

PACKAGE = Path(resample_layers.__file__).parent

# Steps 2 to 4: a file of the package, as CONTRIBUTING tells it
PRODUCT = '''
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .op import Grads, Op


def native(input: Tensor, weight: Tensor, gain: float) -> Tensor:
    return input * weight * gain


def fake(input: Tensor, weight: Tensor, gain: float) -> Tensor:
    return torch.empty_like(input)


def setup(needs: Sequence[bool], inputs: tuple[Any, ...], output: Tensor) -> Any:
    input, weight, gain = inputs
    return (weight if needs[0] else None, input if needs[1] else None), gain


def backward(needs: Sequence[bool], saved: Sequence[Any], gain: Any, grad: Tensor) -> Grads:
    weight, input = saved
    return (
        PRODUCT(grad, weight, gain) if needs[0] else None,
        PRODUCT(grad, input, gain) if needs[1] else None,
    )


PRODUCT = Op(
    "product", "(Tensor input, Tensor weight, float gain) -> Tensor", native, fake, setup, backward
)


def product(input: Tensor, weight: Tensor, gain: float = 1.0) -> Tensor:
    """``input * weight * gain``, element by element."""
    return PRODUCT(input, weight, gain)
'''

# Step 5: its tests
TESTS = """
import sys, torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from resample_layers.ops import extension, product, upfirdn2d

assert extension.choices["cpu"].backend == sys.argv[1], extension.choices
assert upfirdn2d(torch.ones(1, 1, 3, 4), torch.ones(2, 2)).sum() == 24

x, w = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
assert torch.equal(product(x, w), x * w)
assert torch.equal(product(x, w, 2.0), 2 * x * w)
ops = torch.ops.resample_layers
for call in (product, lambda *a: ops.product.default(*a, 2.0)):
    assert gradcheck(call, (x, w))
    assert gradgradcheck(call, (x, w))
torch.library.opcheck(ops.product.default, (x, w, 2.0))
torch.library.opcheck(ops._product.default, (x.detach(), w.detach(), 2.0))
# The compiled product of test_build.py is made of torch's, and nothing switches autograd off there
if sys.argv[1] == "native":
    assert not ops._product.default(x, w, 2.0).requires_grad
a, b = x.detach(), w.detach()
torch.testing.assert_close(grad(lambda t: product(t, b, 3.0).sum())(a), 3 * b)
torch.testing.assert_close(jvp(lambda t: product(t, b), (a,), (a,))[1], a * b)
torch.testing.assert_close(jvp(lambda t: ops._product.default(t, b, 1.0), (a,), (a,))[1], a * b)
torch.testing.assert_close(vmap(ops.product.default, (0, None, None))(a, b[0], 2.0), 2 * a * b[0])
# Tensors that are alone, or left out
def scaled(name, schema, count):
    from resample_layers.ops.op import Op
    native = lambda input, *rest: input * rest[-1]
    backward = lambda needs, saved, gain, grad: (op(grad, *(None,) * (count - 1), gain),) + (
        None,) * (count - 1)
    op = Op(name, schema, native, lambda input, *rest: torch.empty_like(input),
            lambda needs, inputs, output: ((), inputs[-1]), backward)
    return op
alone = scaled("alone", "(Tensor input, float gain) -> Tensor", 1)
left_out = scaled("left_out", "(Tensor input, Tensor? other, float gain) -> Tensor", 2)
assert gradgradcheck(lambda x: alone(x, 3.0).sin(), (x,))
assert gradgradcheck(lambda x: left_out(x, None, 3.0).sin(), (x,))

compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(torch.autograd.grad(compiled(x, w).sum(), x)[0], w)
jacobian = torch.autograd.functional.jacobian(lambda t: product(t, w), x, vectorize=True)
torch.testing.assert_close(jacobian.reshape(12, 12).diagonal(), w.reshape(-1))
print("passed")
"""


def add(package: Path) -> None:
    """Steps 2 to 4 in a copy of the package."""
    (package / "ops" / "product.py").write_text(PRODUCT)
    replace(
        package / "ops" / "__init__.py",
        "from .upfirdn2d import upfirdn2d\n",
        "from .product import product\nfrom .upfirdn2d import upfirdn2d\n",
    )


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_op_in_python_alone(tmp_path):
    folder = tmp_path / "resample_layers"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    add(folder)
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "error:resample_layers:UserWarning",
            "-c",
            TESTS,
            extension.choices["cpu"].backend,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("passed\n")
