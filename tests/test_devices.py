# SPDX-License-Identifier: BSD-3-Clause
"""Devices that the package has no kernels for are served by the native path: no CUDA, no float64
and no convolution is assumed. The meta device computes shapes alone. For numbers there is a device
of another party, which other_device.cpp registers and other_device.py runs all ops and layers on.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import resample_layers as layers
from resample_layers.compat import bigvgan
from resample_layers.ops import (
    FusedLeakyReLU,
    bias_act,
    fused_leaky_relu,
    native,
    upfirdn1d,
    upfirdn2d,
    upfirdn2d_bias_act,
    upfirdn3d,
)
from resample_layers.ops.filtered_act import filtered_lrelu, filtered_snake

from .tools import require

HERE = Path(__file__).parent
PRIVATE = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)
X = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
K, T, B = torch.randn(4, 3), torch.randn(8), torch.tensor([0.5, -0.25, 1.0])
N, S = torch.randn(2, 1, 16, 18), torch.tensor([0.5])
FILTERED = {"up": 2, "down": 2, "pad": (4, 3), "down_pad": (3, 4)}
CALLS = {
    "upfirdn2d, planar": (lambda x, k: upfirdn2d(x, k, up=2, down=(1, 3), pad=(2, 1)), X, K),
    "upfirdn2d, separable": (lambda x, t: upfirdn2d(x, t, up=3, down=2, pad=(4, 5)), X, T),
    "upfirdn2d, channels_last": (
        lambda x, t: upfirdn2d(x, t, up=2, pad=(4, 3)),
        X.contiguous(memory_format=torch.channels_last),
        T,
    ),
    "upfirdn1d": (lambda x, t: upfirdn1d(x, t, up=2, down=3, pad=(4, 3)), X.flatten(2), T),
    "upfirdn3d": (lambda x, t: upfirdn3d(x, t, up=2, pad=(4, 3)), X[:, :, None].clone(), T),
    "upfirdn2d_bias_act": (
        lambda x, k, b, n, s: upfirdn2d_bias_act(
            x, k, b, n, s, up=2, pad=(1, 1, 2, 1), clamp=0.9
        ),
        X, torch.randn(4, 3), B, N, S,
    ),
    "bias_act": (bias_act, X, B),
    "fused_leaky_relu": (fused_leaky_relu, X, B),
    "filtered_lrelu": (lambda x, t, b: filtered_lrelu(x, t, t, b, **FILTERED), X, T, B),
    "filtered_snake": (
        lambda x, a, t: filtered_snake(x, a, None, t, t, **FILTERED), X.flatten(2), B, T,
    ),
    "more channels than MPS convolves": (
        lambda x, k: upfirdn2d(x, k, up=2, pad=(2, 1)), torch.randn(1, 65_537, 2, 3), K,
    ),
}  # fmt: skip


def first_and_second_order(call, tensors):
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = call(*leaves)
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    total = sum(grad.square().sum() for grad in first)
    second = torch.autograd.grad(total, leaves, allow_unused=True)
    return [out, *first, *second]


VOLUME = X[:, :, None].expand(-1, -1, 4, -1, -1)
LAYERS = {
    "UpFirDnUpsample": (layers.UpFirDnUpsample, X),
    "UpFirDnDownsample": (layers.UpFirDnDownsample, X),
    "UpFirDnSmooth": (layers.UpFirDnSmooth, X),
    "UpFirDnUpsample, reflect": (lambda: layers.UpFirDnUpsample(padding_mode="reflect"), X),
    "UpFirDnUpsample1d": (layers.UpFirDnUpsample1d, X.flatten(2)),
    "UpFirDnDownsample1d": (layers.UpFirDnDownsample1d, X.flatten(2)),
    "UpFirDnSmooth1d": (layers.UpFirDnSmooth1d, X.flatten(2)),
    "UpFirDnUpsample3d": (layers.UpFirDnUpsample3d, VOLUME),
    "UpFirDnDownsample3d": (layers.UpFirDnDownsample3d, VOLUME),
    "UpFirDnSmooth3d": (layers.UpFirDnSmooth3d, VOLUME),
    "UpFirDnResample": (lambda: layers.UpFirDnResample(3, 2), X),
    "UpFirDnResample1d": (lambda: layers.UpFirDnResample1d(2, 3), X.flatten(2)),
    "UpFirDnResample3d": (lambda: layers.UpFirDnResample3d(3, 2), VOLUME),
    "FilteredLeakyReLU": (lambda: layers.FilteredLeakyReLU(3), X),
    "FilteredSnake": (lambda: layers.FilteredSnake(3), X.flatten(2)),
    "FilteredSnakeBeta": (lambda: layers.FilteredSnakeBeta(3), X.flatten(2)),
    "FusedLeakyReLU": (lambda: FusedLeakyReLU(3), X),
    "compat.bigvgan": (
        lambda: bigvgan.Activation1d(bigvgan.SnakeBeta(3, alpha_logscale=True)), X.flatten(2),
    ),
}  # fmt: skip


def test_every_layer_is_among_these():
    public = [x for x in vars(layers).values() if isinstance(x, type)]
    assert {x.__name__ for x in public if issubclass(x, torch.nn.Module)} <= set(LAYERS)


def test_a_device_of_another_party(tmp_path):
    """Values, gradients, second order and layers are the CPU's; see other_device.cpp."""
    compiler = require("g++")
    torch_folder, library = Path(torch.__file__).parent, tmp_path / "device.so"
    command = [compiler, "-std=c++20", "-O0", "-shared", "-fPIC", HERE / "other_device.cpp",
               f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10",
               "-o", library]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run(
        [sys.executable, "-m", "tests.other_device", library],
        cwd=HERE.parent,
        env={**os.environ, "RESAMPLE_LAYERS_BACKEND": "native"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.splitlines() == ["strictness", *CALLS, *LAYERS], ran.stderr


@pytest.mark.parametrize("name", CALLS)
def test_native_sums_use_no_float64_and_no_convolution(name, monkeypatch):
    """The in-place sums of plain tensors, which are not traced: what reaches torch's dispatcher."""
    call, *tensors = CALLS[name]
    monkeypatch.setattr(native, "PIECE_BYTES", {})  # as on a device that is no CPU
    with torch.no_grad():
        expected = call(*tensors)
        dtypes = set()

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, op, kinds, args=(), kwargs=None):
                if op.namespace == "resample_layers":
                    return op.redispatch(PRIVATE, *args, **(kwargs or {}))
                assert "conv" not in op.name()
                result = op(*args, **(kwargs or {}))
                dtypes.update(
                    x.dtype for x in tree_flatten(result)[0] if isinstance(x, torch.Tensor)
                )
                return result

        with Watch():
            out = call(*tensors)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert dtypes <= {torch.float32, torch.bool, torch.int64}, dtypes


@pytest.mark.parametrize("name", CALLS)
def test_ops_on_meta(name):
    """Shapes, dtypes and layouts of values and gradients, without a number being computed."""
    call, *tensors = CALLS[name]
    theirs = first_and_second_order(call, [x.to("meta") for x in tensors])
    for one, other in zip(theirs, first_and_second_order(call, tensors), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.is_meta
            assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_meta(name):
    make, x = LAYERS[name]
    with torch.device("meta"):
        module = make()
    out = module(x.to("meta"))
    assert (out.device.type, out.shape) == ("meta", make()(x).shape)
    restored = module.to_empty(device="cpu")
    filters = dict(make().named_buffers())
    assert all(torch.equal(b, filters[name]) for name, b in restored.named_buffers())
