# SPDX-License-Identifier: BSD-3-Clause
"""The five conventions: the originals' numbers, meanings of pads, flips and gains, checkpoints.

Three witnesses: the formula, stated here in NumPy with each original's meaning of its arguments;
numbers that the originals computed (``compat_fixtures.npz``, made by
``scripts/compat_fixtures.py``); and, where ``PEERS`` names checkouts, the originals themselves.
"""

import copy
import importlib
import inspect
import io
import math
import random
import re
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from resample_layers import compat, ops
from resample_layers.compat import basicsr, bigvgan, mmcv, nvidia, rosinality

from . import compat_originals, oracle
from .compat_originals import CALLS, EIGHT, FILTERS, KERNELS, LINES, TAPS, UNEVEN, X
from .tools import require

pytestmark = pytest.mark.filterwarnings("ignore:the phases of resample_kernel")
FIXTURES = np.load(Path(__file__).parent / "compat_fixtures.npz")
OURS = {name: compat_originals.functions(getattr(compat, name)) for name in compat.__all__}
BY_NAME = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)


def images(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or X, dtype=dtype, generator=generator)


# The formula, with each original's meaning of its arguments


def before_after(pad):
    """rosinality, BasicSR, diffusers: two are (before, after), four (x0, x1, y0, y1)."""
    return tuple(pad) if len(pad) == 4 else (pad[0], pad[1], pad[0], pad[1])


def x_and_y(padding):
    """NVIDIA, mmcv: one is all four, two are x on both sides and y on both sides."""
    if isinstance(padding, int):
        return (padding,) * 4
    x, *rest = padding
    return (x, x, *rest, *rest) if len(padding) == 2 else tuple(padding)


def formula(x, kernel, up=(1, 1), down=(1, 1), pads=(0, 0, 0, 0), flip=False, gain=1.0):
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim == 1:
        kernel = np.outer(kernel, kernel)
    if flip:  # a correlation: the convolution with the kernel rotated by a half turn
        kernel = kernel[::-1, ::-1]
    return torch.from_numpy(gain * oracle.upfirdn2d(x.numpy(), kernel, up, down, pads))


@pytest.mark.parametrize("pad", [(2, 1), (1, 2), (0, 3), (-1, 2), (2, -1, 0, 3)])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), ((3, 2), (1, 2))])
def test_rosinality_pads_before_and_after(pad, up, down):
    x, kernel = images(), torch.tensor(UNEVEN, dtype=torch.float64)
    pair = [r if isinstance(r, tuple) else (r, r) for r in (up, down)]
    expected = formula(x, UNEVEN, *pair, before_after(pad))
    torch.testing.assert_close(rosinality.upfirdn2d(x, kernel, up, down, pad), expected)
    (up_x, up_y), (down_x, down_y) = pair
    flat = rosinality.upfirdn2d_native(x, kernel, up_x, up_y, down_x, down_y, *before_after(pad))
    torch.testing.assert_close(flat, expected)


@pytest.mark.parametrize("pad", [(2, 1), (1, 2), (-1, 2), [0, 3]])
def test_basicsr_pads_before_and_after(pad):
    x, kernel = images(), torch.tensor(UNEVEN, dtype=torch.float64)
    expected = formula(x, UNEVEN, (2, 2), (3, 3), before_after(pad))
    torch.testing.assert_close(basicsr.upfirdn2d(x, kernel, 2, 3, pad), expected)
    repeated = type(pad)((*pad, *pad))  # the original's four, where they say what it does
    torch.testing.assert_close(basicsr.upfirdn2d(x, kernel, 2, 3, repeated), expected)


@pytest.mark.parametrize("module", [nvidia, mmcv])
@pytest.mark.parametrize("taps", [UNEVEN, EIGHT, None], ids=["2-D", "separable", "none"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [4, [4, 5], [5, 4], [4, 6, 3, 7]])
def test_nvidia_and_mmcv_pad_x_and_y(module, taps, flip, padding):
    x = images()
    f = None if taps is None else torch.tensor(taps, dtype=torch.float64)
    out = module.upfirdn2d(x, f, [3, 2], [1, 2], padding, flip, 1.5)
    kernel = [[1.0]] if taps is None else taps
    expected = formula(x, kernel, (3, 2), (1, 2), x_and_y(padding), flip, 1.5)
    torch.testing.assert_close(out, expected)


def test_the_same_two_numbers_are_two_different_pads():
    """Where the conventions part: porting between them by name alone goes wrong."""
    x, kernel = images(1, 1, 5, 6), torch.ones(4, 4, dtype=torch.float64)
    assert rosinality.upfirdn2d(x, kernel, up=2, pad=(2, 1)).shape == (1, 1, 10, 12)
    assert nvidia.upfirdn2d(x, kernel, up=2, padding=(2, 1)).shape == (1, 1, 9, 13)
    assert mmcv.upfirdn2d(x, kernel, up=2, padding=(2, 1)).shape == (1, 1, 9, 13)


@pytest.mark.parametrize("module", [nvidia, mmcv])
@pytest.mark.parametrize("taps", [UNEVEN, EIGHT, TAPS], ids=["2-D", "eight", "four"])
def test_nvidia_s_sizes_and_gains(module, taps):
    """filter2d keeps the size, upsample2d and downsample2d multiply and divide it."""
    x, f = images(), torch.tensor(taps, dtype=torch.float64)
    fh, fw = np.shape(taps) * 2 if len(np.shape(taps)) == 1 else np.shape(taps)
    h, w = X[2:]
    x0, x1, y0, y1 = extra = (1, 2, 0, 1)

    pads = (x0 + fw // 2, x1 + (fw - 1) // 2, y0 + fh // 2, y1 + (fh - 1) // 2)
    out = module.filter2d(x, f, extra, gain=0.5)
    assert out.shape == (*X[:2], h + y0 + y1, w + x0 + x1)
    torch.testing.assert_close(out, formula(x, taps, pads=pads, gain=0.5))

    up, ux, uy = [2, 3], 2, 3
    pads = (
        x0 + (fw + ux - 1) // 2, x1 + (fw - ux) // 2, y0 + (fh + uy - 1) // 2, y1 + (fh - uy) // 2,
    )  # fmt: skip
    out = module.upsample2d(x, f, up, extra, True, 0.5)
    assert out.shape == (*X[:2], h * uy + y0 + y1, w * ux + x0 + x1)
    torch.testing.assert_close(out, formula(x, taps, (ux, uy), (1, 1), pads, True, 0.5 * ux * uy))

    pads = (
        x0 + (fw - ux + 1) // 2, x1 + (fw - ux) // 2, y0 + (fh - uy + 1) // 2, y1 + (fh - uy) // 2,
    )  # fmt: skip
    out = module.downsample2d(x, f, up, extra, False, 0.5)
    torch.testing.assert_close(out, formula(x, taps, (1, 1), (ux, uy), pads, False, 0.5))
    assert module.downsample2d(x, f, up).shape == (*X[:2], h // uy, w // ux)


def test_a_separable_gain_counts_once_and_keeps_its_sign():
    """A gain on both axes would square it; a root of it would lose the sign."""
    x, f = images(), torch.tensor(EIGHT, dtype=torch.float64)
    expected = formula(x, EIGHT, pads=(4,) * 4, gain=-3.0)
    torch.testing.assert_close(nvidia.upfirdn2d(x, f, padding=4, gain=-3.0), expected)


def test_a_half_filter_is_not_rounded_again_by_its_gain():
    """The gain multiplies in float32, whatever dtype a moved module left the filter in."""
    x, f = images(dtype=torch.float32), torch.tensor([0.1, 0.7], dtype=torch.float16)
    expected = formula(x.double(), f.double().numpy(), gain=3.3)
    out = nvidia.upfirdn2d(x, f, gain=3.3)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)
    assert nvidia.upfirdn2d(x.half(), f, gain=3.3).dtype == torch.float16


@pytest.mark.parametrize("module", [nvidia, mmcv])
@pytest.mark.parametrize("taps", [[[0.1, 0.7], [0.3, 0.6]], [0.1, 0.7, 0.4]], ids=["2-D", "1-D"])
def test_a_gain_does_not_round_the_filter_of_float64_images(module, taps):
    """NVIDIA's filters are float32: what they hold counts, and times the gain is float64."""
    x, f = images(), torch.tensor(taps)
    exact, k = f.double().numpy(), len(taps)
    out = module.upfirdn2d(x, f, padding=2, gain=3.3)
    expected = formula(x, exact, pads=(2, 2, 2, 2), gain=3.3)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    out = module.upsample2d(x, f, 3, gain=1.1)
    expected = formula(x, exact, (3, 3), pads=((k + 2) // 2, (k - 3) // 2) * 2, gain=9 * 1.1)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_a_gain_does_not_round_the_filter_of_a_convolution():
    x, w, f = images(2, 3, 4, 5), images(2, 3, 1, 1, seed=1), torch.tensor([[0.1, 0.7]] * 2)
    out = nvidia.conv2d_resample(x, w, f, up=3)
    y = torch.from_numpy(weighted(x.numpy(), w.numpy(), 1, True))
    expected = formula(y, f.double().numpy(), (3, 3), (1, 1), (2, -1, 2, -1), gain=9.0)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def weighted(x, w, groups, correlate):
    """A valid convolution in loops."""
    out_channels, per_group, kh, kw = w.shape
    n, _, h, width = x.shape
    out = np.zeros((n, out_channels, h - kh + 1, width - kw + 1))
    for o in range(out_channels):
        first = o // (out_channels // groups) * per_group
        for i in range(kh):
            for j in range(kw):
                tap = w[o, :, i, j] if correlate else w[o, :, kh - 1 - i, kw - 1 - j]
                window = x[:, first : first + per_group, i : i + out.shape[2], j : j + out.shape[3]]
                out[:, o] += (window * tap[:, None, None]).sum(1)
    return out


@pytest.mark.parametrize("flips", [(True, False), (False, True)])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 2)])
@pytest.mark.parametrize("taps", [UNEVEN, EIGHT, None], ids=["2-D", "separable", "none"])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("padding", [1, [2, 1], [1, 2, 0, 1]])
def test_conv2d_resample(up, down, taps, size, flips, padding):
    """Upsample, convolve, downsample, one after the other; all short cuts give the same."""
    x, w = images(2, 4, 6, 5), images(6, 2, *size, seed=1)
    flip_weight, flip_filter = flips
    f = None if taps is None else torch.tensor(taps, dtype=torch.float64)
    out = nvidia.conv2d_resample(
        x, w, f, up, down, padding, groups=2, flip_weight=flip_weight, flip_filter=flip_filter
    )

    kernel = np.ones((1, 1)) if taps is None else np.asarray(taps)
    fh, fw = kernel.shape * 2 if kernel.ndim == 1 else kernel.shape
    pads = list(x_and_y(padding))
    for axis, k in ((0, fw), (2, fh)):
        if up > 1:
            pads[axis] += (k + up - 1) // 2
            pads[axis + 1] += (k - up) // 2
        if down > 1:
            pads[axis] += (k - down + 1) // 2
            pads[axis + 1] += (k - down) // 2
    first = kernel if up > 1 else np.ones((1, 1))
    y = formula(x, first, (up, up), (1, 1), pads, flip_filter, up**2)
    y = torch.from_numpy(weighted(y.numpy(), w.numpy(), 2, flip_weight))
    if down > 1:
        y = formula(y, kernel, (1, 1), (down, down), flip=flip_filter)
    torch.testing.assert_close(out, y)


def test_conv2d_resample_crops_deeper_than_the_image():
    """Two of one column go, and four come: padding by ``F.pad`` alone refuses."""
    x, w = images(1, 1, 9, 1), images(2, 1, 4, 1, seed=1)
    out = nvidia.conv2d_resample(x, w, padding=[-2, 4, -2, 0])
    assert torch.equal(out, torch.zeros(1, 2, 4, 3, dtype=torch.float64))


ACTIVATIONS = {  # function, gain
    "linear": (lambda z, a: z, 1.0),
    "relu": (lambda z, a: np.maximum(z, 0), np.sqrt(2)),
    "lrelu": (lambda z, a: np.where(z < 0, a * z, z), np.sqrt(2)),
    "tanh": (lambda z, a: np.tanh(z), 1.0),
    "sigmoid": (lambda z, a: 1 / (1 + np.exp(-z)), 1.0),
    "elu": (lambda z, a: np.where(z < 0, np.expm1(z), z), 1.0),
    "selu": (
        lambda z, a: 1.0507009873554805 * np.where(z < 0, 1.6732632423543772 * np.expm1(z), z), 1.0,
    ),
    "softplus": (lambda z, a: np.log1p(np.exp(z)), 1.0),
    "swish": (lambda z, a: z / (1 + np.exp(-z)), np.sqrt(2)),
}  # fmt: skip


@pytest.mark.parametrize("module", [nvidia, mmcv])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dim", [0, 1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 40, 30)])
def test_bias_act(module, act, dim, shape):
    x, b = images(*shape), images(shape[dim], seed=1)
    function, gain = ACTIVATIONS[act]
    z = x.numpy() + b.numpy().reshape([-1 if d == dim else 1 for d in range(4)])
    expected = torch.from_numpy(gain * function(z, 0.2))
    torch.testing.assert_close(module.bias_act(x, b, dim, act), expected)
    expected = torch.from_numpy(np.clip(-0.7 * function(z, 0.2), -0.4, 0.4))
    out = module.bias_act(x, b, dim, act, gain=-0.7, clamp=0.4)
    torch.testing.assert_close(out, expected)
    half = module.bias_act(x.half(), b, dim, act)  # the bias is wider than the input
    assert half.dtype == torch.float16
    unclamped = torch.from_numpy(gain * function(z, 0.2))
    torch.testing.assert_close(half.double(), unclamped, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("clamp", [None, 1.0])
def test_a_linear_result_may_be_added_to_in_place(clamp):
    """As NVIDIA's networks do, ``img.add_(y)``: nobody may have saved it. Large: in one pass."""
    x, b, more = images(1, 2, 40, 30).requires_grad_(), images(2, seed=1), images(1, 2, 40, 30)
    nvidia.bias_act(x, b, clamp=clamp).add_(more).sum().backward()
    inside = (x + b[:, None, None]).abs() <= (np.inf if clamp is None else clamp)
    torch.testing.assert_close(x.grad, inside.double())


@pytest.mark.parametrize("module", [nvidia, mmcv])
@pytest.mark.parametrize(("alpha", "clamp"), [(0.0, None), (0.5, 0.6), (-0.3, 0.6), (1.7, 0.0)])
def test_bias_act_of_leaky_relu(module, alpha, clamp):
    x = images(1, 2, 40, 30)
    expected = np.where(x.numpy() < 0, alpha * x.numpy(), x.numpy()) * 2
    if clamp is not None:
        expected = np.clip(expected, -clamp, clamp)
    out = module.bias_act(x, act="lrelu", alpha=alpha, gain=2, clamp=clamp)
    torch.testing.assert_close(out, torch.from_numpy(expected))


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (1, 3, 2, 3, 4)])
@pytest.mark.parametrize("slope", [0.2, 0.05])
def test_fused_activations(shape, slope):
    """The slope counts, on the CPU too, where rosinality's takes 0.2 for any."""
    x, b = images(*shape), images(3, seed=1)
    z = x.numpy() + b.numpy().reshape(1, -1, *(1,) * (len(shape) - 2))
    expected = torch.from_numpy(1.3 * np.where(z < 0, slope * z, z))
    for function in (
        rosinality.fused_leaky_relu, basicsr.fused_leaky_relu, mmcv.fused_bias_leakyrelu,
    ):  # fmt: skip
        torch.testing.assert_close(function(x, b, slope, 1.3), expected)
    for module in (
        rosinality.FusedLeakyReLU(3, True, slope, 1.3),
        basicsr.FusedLeakyReLU(3, slope, 1.3),
        mmcv.FusedBiasLeakyReLU(3, slope, 1.3),
    ):
        module.load_state_dict({"bias": b})
        torch.testing.assert_close(module.double()(x), expected, rtol=1e-6, atol=1e-6)
    unbiased = rosinality.FusedLeakyReLU(3, False, slope, 1.3)
    assert not unbiased.state_dict()
    expected = torch.from_numpy(1.3 * np.where(x.numpy() < 0, slope * x.numpy(), x.numpy()))
    torch.testing.assert_close(unbiased(x), expected)


@pytest.mark.parametrize("device", ["cpu", "cuda", torch.device("cpu"), None])
def test_gpen_s_device_chooses_nothing(device):
    x, k, b = images(), torch.tensor(UNEVEN, dtype=torch.float64), images(3, seed=1)
    out = rosinality.upfirdn2d(x, k, up=2, down=1, pad=(2, 1), device=device)
    torch.testing.assert_close(out, formula(x, UNEVEN, (2, 2), pads=(2, 1, 2, 1)))
    z = x + b[:, None, None]
    expected = 1.3 * torch.where(z < 0, 0.1 * z, z)
    torch.testing.assert_close(rosinality.fused_leaky_relu(x, b, 0.1, 1.3, device), expected)
    module = rosinality.FusedLeakyReLU(3, negative_slope=0.1, scale=1.3, device=device).double()
    module.load_state_dict({"bias": b})
    torch.testing.assert_close(module(x), expected)


def test_lia_s_bias_of_four_dimensions():
    """In calls and in checkpoints; a file of ours loads as well."""
    x, b = images(), images(1, 3, 1, 1, seed=1)
    z = x + b
    expected = 2**0.5 * torch.where(z < 0, 0.2 * z, z)
    torch.testing.assert_close(rosinality.fused_leaky_relu(x, b), expected)
    net = nn.Sequential(rosinality.FusedLeakyReLU(3).double())
    state = {"0.bias": b}
    for assign in (False, True):
        net.load_state_dict(state, assign=assign)
        torch.testing.assert_close(net(x), expected)
    assert state["0.bias"].shape == (1, 3, 1, 1)  # the caller's stay as they are
    assert net.state_dict()["0.bias"].shape == (3,)
    net.load_state_dict(net.state_dict())
    for wrong in (images(1, 4, 1, 1), images(1, 1, 3, 1), images(3, 1, 1, 1)):
        with pytest.raises(RuntimeError, match=r"size mismatch for 0\.bias"):
            net.load_state_dict({"0.bias": wrong})
    with pytest.raises(ValueError, match=r"bias must be \[C\] with the C of input"):
        rosinality.fused_leaky_relu(x, images(1, 4, 1, 1))


# The originals


def assert_near(ours, theirs, tolerance=1e-6):
    """Relative to the largest: sums of large terms may be small."""
    scale = theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


@BY_NAME
def test_the_original_s_numbers(call):
    expected = torch.from_numpy(FIXTURES[call.name])
    assert_near(call.run(OURS[call.convention]), expected)
    if call.convention == "nvidia" and call.function in OURS["mmcv"]:
        assert_near(call.run(OURS["nvidia"], impl="ref"), expected)
        assert_near(call.run(OURS["mmcv"], use_custom_op=False), expected)


def test_kernels_are_the_original_s_to_the_bit():
    for i, (taps, arguments) in enumerate(FILTERS):
        ours = nvidia.setup_filter(taps, **arguments)
        assert torch.equal(ours, torch.from_numpy(FIXTURES[f"filter {i}"])), (taps, arguments)
    for i, taps in enumerate(KERNELS):
        for ours in (rosinality.make_kernel(taps), basicsr.make_resample_kernel(np.array(taps))):
            assert torch.equal(ours, torch.from_numpy(FIXTURES[f"kernel {i}"])), taps


OURS_IN_LINES: dict = {}
imports = re.search("right come from:\n\n```python\n(.*?)```", compat_originals.PAGE, re.DOTALL)
exec(imports[1], OURS_IN_LINES)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.code}: {line.theirs}")
def test_the_page_s_lines(line):
    """Each row of the table in docs/migrating.md gives what the original gave."""
    for shape in line.shapes():
        expected = torch.from_numpy(FIXTURES[line.name(shape)])
        assert_near(line.run(line.ours, OURS_IN_LINES, shape), expected)


def test_the_page_has_lines_of_every_code():
    assert {line.code for line in LINES} == set(compat_originals.LINES_OF)
    rows = [row for row in compat_originals.PAGE.splitlines() if row.startswith("|")]
    assert len(LINES) == len(rows) - 2  # the head


@pytest.mark.parametrize("code", compat_originals.LINES_OF)
def test_the_original_s_lines(code):
    """What was recorded is what they compute."""
    with compat_originals.names_of(compat_originals.require_peers(), code) as names:
        require(f"{code} in PEERS", found=names is not None)
        for line in (line for line in LINES if line.code == code):
            for shape in line.shapes():
                expected = torch.from_numpy(FIXTURES[line.name(shape)])
                assert_near(line.run(line.theirs, names, shape), expected)


@pytest.fixture(scope="module")
def originals():
    found = compat_originals.load(compat_originals.require_peers())

    def functions(peer):
        require(f"{peer} in PEERS", found=peer in found)
        return found[peer]

    return functions


@BY_NAME
def test_the_original(call, originals):
    """Outputs, first and second derivatives, of checkouts; NVIDIA's take float32 filters alone."""
    image, tensors = call.inputs()
    wide = call.convention != "nvidia" or call.function == "bias_act"
    tensors = [t.double() if t is not None and (wide or t.dim() > 2) else t for t in tensors]
    conventions = {
        "nvidia": ("ada", "stylegan3"), "bigvgan": ("bigvgan", "alias_free_torch")
    }.get(call.convention, (call.convention,))  # fmt: skip
    if call.function == "filtered_lrelu":  # ADA has none; a bias is of the image's dtype
        conventions, tensors[2:] = (
            ("stylegan3",),
            [t if t is None else t.double() for t in tensors[2:]],
        )
    if "Activation1d of" in call.function:  # alias_free_torch has filters alone
        conventions = ("bigvgan",)
    # BigVGAN designs its filters in float32
    tolerance = 1e-5 if call.convention == "bigvgan" else 1e-6
    for theirs in map(originals, conventions):
        x, y = (image.double().requires_grad_() for _ in range(2))
        outs = [
            functions[call.function](z, *tensors, **call.arguments)
            for functions, z in ((OURS[call.convention], x), (theirs, y))
        ]
        assert_near(*outs, tolerance)
        grads = [
            torch.autograd.grad(out.pow(3).sum(), z, create_graph=True)[0]
            for out, z in zip(outs, (x, y), strict=True)
        ]
        assert_near(*grads, tolerance)
        seconds = [
            torch.autograd.grad(g.pow(2).sum(), z)[0] for g, z in zip(grads, (x, y), strict=True)
        ]
        assert_near(*seconds, tolerance if tolerance == 1e-6 else 1e-4)


TOLERANCES = {
    torch.float64: 1e-6,  # NVIDIA's filters are float32
    torch.float32: 1e-5,
    torch.float16: 3e-2,  # theirs rounds the taps, and separable sums between the passes
    torch.bfloat16: 0.2,
}


def random_image(rng, *shape):
    """Of any dtype and strides."""
    dtype = rng.choice(list(TOLERANCES))
    image = torch.randn(shape, dtype=torch.float64).to(dtype)
    return rng.choice([
        image,
        image.contiguous(memory_format=torch.channels_last),
        torch.stack([image, image], -1)[..., 1],
        image.mT.contiguous().mT,
    ])  # fmt: skip


def random_calls(peer, rng):
    """``(function, image, *tensors), arguments`` that any code of the dialect may write."""
    image = random_image(rng, *(rng.randint(1, n) for n in (3, 4, 11, 11)))
    pads = [rng.randint(-2, 6) for _ in range(4)]
    up, down = ([rng.randint(1, 4), rng.randint(1, 4)] for _ in range(2))
    shape = (rng.randint(1, 6), rng.randint(1, 6))
    if peer in ("rosinality", "basicsr"):
        kernel = torch.randn(shape).to(image.dtype)
        if peer == "basicsr":
            up, down, pads = up[0], down[0], pads[:2]
        yield ("upfirdn2d", image, kernel), {"up": up, "down": down, "pad": tuple(pads)}
        yield ("upfirdn2d", image, kernel), {"up": 2, "pad": tuple(pads[:2])}
        return
    f = rng.choice([None, torch.randn(shape), torch.randn(2 * shape[0])])
    padding = rng.choice([pads[0], pads[:2], pads])
    how = {"padding": padding, "flip_filter": rng.random() < 0.5, "gain": rng.uniform(0.1, 4.0)}
    yield ("upfirdn2d", image, f), {"up": up, "down": down, **how}
    yield ("filter2d", image, f), how
    yield ("upsample2d", image, f), {"up": rng.choice([up, up[0]]), **how}
    yield ("downsample2d", image, f), {"down": rng.choice([down, down[0]]), **how}
    if peer != "ada":
        g = rng.choice([None, torch.randn(shape[::-1]), torch.randn(2 * shape[1])])
        bias = rng.choice([None, torch.randn(image.shape[1]).to(image.dtype)])
        yield ("filtered_lrelu", image, f, g, bias), {
            "up": up[0], "down": down[0], "slope": rng.choice([0.0, 0.2, 1.0]),
            "clamp": rng.choice([None, 0.5, 256]), **how,
        }  # fmt: skip
    if peer == "mmcv":
        return
    groups = rng.randint(1, 2)
    image = random_image(rng, 2, groups * rng.randint(1, 2), rng.randint(1, 9), rng.randint(1, 9))
    size = rng.choice([(1, 1), (3, 3), (rng.randint(1, 4), rng.randint(1, 4))])
    weight = torch.randn(2 * groups, image.shape[1] // groups, *size).to(image.dtype)
    yield ("conv2d_resample", image, weight, f), {
        "up": up[0], "down": down[0], "padding": padding, "groups": groups,
        "flip_weight": rng.random() < 0.5, "flip_filter": rng.random() < 0.5,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Since aten:UserWarning")  # mmcv's
@pytest.mark.parametrize("peer", ["rosinality", "basicsr", "ada", "stylegan3", "mmcv"])
def test_the_original_on_random_calls(peer, originals):
    """Outputs and gradients; what it refuses, ours refuses."""
    rng, theirs, compared, refused = random.Random(5), originals(peer), 0, 0
    ours = OURS[{"ada": "nvidia", "stylegan3": "nvidia"}.get(peer, peer)]
    for _ in range(60):
        for (name, image, *tensors), arguments in random_calls(peer, rng):
            results = []
            for functions in (theirs, ours):
                x = image.detach().requires_grad_()
                try:
                    out = functions[name](x, *tensors, **arguments)
                except (AssertionError, RuntimeError, ValueError) as error:
                    results.append(type(error))
                    continue
                slope = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype)
                results.append([out, *torch.autograd.grad(out, x, slope)])
            if isinstance(results[0], type):
                assert results[1] is ValueError, (name, image.shape, arguments)
                refused += 1
                continue
            if 0 in results[0][0].shape and results[1] is ValueError:
                continue  # StyleGAN2-ADA's returns nothing
            for a, b in zip(*results, strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                if a.isfinite().all() and a.abs().max() > 0.1:
                    assert_near(b, a, TOLERANCES[image.dtype])
            compared += 1
    assert compared > 80
    assert refused > 0


def test_mmcv_s_own_test_of_filtered_lrelu(monkeypatch):
    """Its file, with our function in place of its own; what it does on CUDA runs on the CPU."""
    folder = Path(compat_originals.require_peers()) / "mmcv"
    file = folder / "tests" / "test_ops" / "test_filtered_lrelu.py"
    require("mmcv's tests in PEERS", found=file.exists())
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    names: dict = {}
    with (
        compat_originals.importable(folder, *compat_originals.PARTS["mmcv"][1]),
        compat_originals.pretended("mmcv"),
    ):
        sys.modules["mmcv.ops"].filtered_lrelu = mmcv.filtered_lrelu
        exec(file.read_text(), names)
    tests = names["TestFilteredLrelu"]()
    tests.setup_class()
    tests.test_filtered_lrelu_cpu()
    tests.test_filtered_lrelu_cuda()


ROOT = math.sqrt(2.0)
CPU = torch.device("cpu")
FIR = "padding=0, flip_filter=False, gain=1"
FILTERED = "up=1, down=1, padding=0, gain=ROOT, slope=0.2, clamp=None, flip_filter=False"
BIASED = "dim=1, act='linear', alpha=None, gain=None, clamp=None"
SIGNATURES = {
    "rosinality": {
        "Blur": "kernel, pad, upsample_factor=1",
        "Downsample": "kernel, factor=2",
        "FusedLeakyReLU": "channel, bias=True, negative_slope=0.2, scale=ROOT, device=None",
        "Upsample": "kernel, factor=2",
        "fused_leaky_relu": "input, bias=None, negative_slope=0.2, scale=ROOT, device=None",
        "make_kernel": "k",
        "upfirdn2d": "input, kernel, up=1, down=1, pad=(0, 0), device=None",
        "upfirdn2d_native": "input, kernel, up_x, up_y, down_x, down_y, "
        "pad_x0, pad_x1, pad_y0, pad_y1",
    },
    "basicsr": {
        "FusedLeakyReLU": "channel, negative_slope=0.2, scale=ROOT",
        "UpFirDnDownsample": "resample_kernel, factor=2",
        "UpFirDnSmooth": "resample_kernel, upsample_factor=1, downsample_factor=1, kernel_size=1",
        "UpFirDnUpsample": "resample_kernel, factor=2",
        "fused_leaky_relu": "input, bias, negative_slope=0.2, scale=ROOT",
        "make_resample_kernel": "k",
        "upfirdn2d": "input, kernel, up=1, down=1, pad=(0, 0)",
    },
    "nvidia": {
        "bias_act": f"x, b=None, {BIASED}, impl='cuda'",
        "conv2d_resample": "x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, "
        "flip_filter=False",
        "downsample2d": f"x, f, down=2, {FIR}, impl='cuda'",
        "filter2d": f"x, f, {FIR}, impl='cuda'",
        "filtered_lrelu": f"x, fu=None, fd=None, b=None, {FILTERED}, impl='cuda'",
        "fma": "a, b, c",
        "setup_filter": "f, device=CPU, normalize=True, flip_filter=False, gain=1, separable=None",
        "upfirdn2d": f"x, f, up=1, down=1, {FIR}, impl='cuda'",
        "upsample2d": f"x, f, up=2, {FIR}, impl='cuda'",
    },
    "mmcv": {
        "FusedBiasLeakyReLU": "num_channels, negative_slope=0.2, scale=ROOT",
        "bias_act": f"input, bias=None, {BIASED}, use_custom_op=True",
        "downsample2d": f"input, filter, down=2, {FIR}, use_custom_op=True",
        "filter2d": f"input, filter, {FIR}, use_custom_op=True",
        "filtered_lrelu": f"input, filter_up=None, filter_down=None, bias=None, {FILTERED}, "
        "use_custom_op=True",
        "fused_bias_leakyrelu": "input, bias, negative_slope=0.2, scale=ROOT",
        "upfirdn2d": f"input, filter, up=1, down=1, {FIR}, use_custom_op=True",
        "upsample2d": f"input, filter, up=2, {FIR}, use_custom_op=True",
    },
    "bigvgan": {
        "Activation1d": "activation, up_ratio=2, down_ratio=2, up_kernel_size=12, "
        "down_kernel_size=12, fused=True",
        "DownSample1d": "ratio=2, kernel_size=None",
        "LowPassFilter1d": "cutoff=0.5, half_width=0.6, stride=1, padding=True, "
        "padding_mode='replicate', kernel_size=12",
        "Snake": "in_features, alpha=1.0, alpha_trainable=True, alpha_logscale=False",
        "SnakeBeta": "in_features, alpha=1.0, alpha_trainable=True, alpha_logscale=False",
        "UpSample1d": "ratio=2, kernel_size=None",
        "kaiser_sinc_filter1d": "cutoff, half_width, kernel_size",
    },
}
"""Of the originals: names and defaults, in order; all may go by name or by place. GPEN's copy of
rosinality's has the ``device``, BigVGAN's class for its CUDA kernel has ``fused``."""
NOT_THEIRS = {"activation_funcs", "conv2d", "conv_transpose2d", "no_weight_gradients"}


def parameters(function):
    """Names, kinds, defaults; of what was wrapped, by ``compat_originals.layer`` or a profiler."""
    inner = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    signature = inspect.signature(inner.get("module") or inner.get("fn") or function)
    defaults = {p.name: (p.kind, p.default) for p in signature.parameters.values()}
    return [
        (k, kind, torch.device(v) if k == "device" and v else v)
        for k, (kind, v) in defaults.items()
    ]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    """Names, order and defaults, of every public function and layer."""
    module = getattr(compat, name)
    public = {n for n in module.__all__ if not inspect.ismodule(getattr(module, n))}
    assert public - NOT_THEIRS == set(SIGNATURES[name])
    for function, signature in SIGNATURES[name].items():
        expected = parameters(eval(f"lambda {signature}: None", globals()))
        assert parameters(getattr(module, function)) == expected, function


ELSEWHERE = {"ada": {"filtered_lrelu"}, "alias_free_torch": {"Snake", "SnakeBeta"}}
CONVENTIONS = {"ada": "nvidia", "stylegan3": "nvidia", "alias_free_torch": "bigvgan"}


@pytest.mark.parametrize(
    "peer",
    ["rosinality", "basicsr", "ada", "stylegan3", "mmcv", "bigvgan", "alias_free_torch"],
)
def test_the_original_s_signatures(peer, originals):
    """The table above is theirs."""
    table = SIGNATURES[CONVENTIONS.get(peer, peer)]
    theirs = originals(peer)
    for function in set(table) - ELSEWHERE.get(peer, set()):
        signature = table[function].removesuffix(", device=None").removesuffix(", fused=True")
        expected = parameters(eval(f"lambda {signature}: None", globals()))
        assert parameters(theirs[function]) == expected, function


GIVEN = {
    "input": images(), "x": images(), "kernel": torch.tensor([TAPS] * 4), "k": TAPS,
    "resample_kernel": TAPS, "f": torch.tensor(UNEVEN), "filter": torch.tensor(UNEVEN),
    "w": images(4, 3, 3, 3), "weight": images(3, 2, 3, 3), "bias": images(3),
    "a": images(), "b": images(), "c": images(), "pad": (2, 1), "channel": 3, "num_channels": 3,
    "activation": bigvgan.SnakeBeta(3), "in_features": 3, "cutoff": 0.2, "half_width": 0.1,
    "kernel_size": 7, **dict.fromkeys(("up_x", "up_y", "down_x", "down_y"), 2),
    **dict.fromkeys(("pad_x0", "pad_x1", "pad_y0", "pad_y1"), 3),
}  # fmt: skip
"""Something for every argument that must be given, by its name."""
PUBLIC = [
    (name, function)
    for name in (*compat.__all__, "conv2d_gradfix")
    for function in importlib.import_module(f"resample_layers.compat.{name}").__all__
]


@pytest.mark.parametrize(("name", "function"), PUBLIC)
def test_optional_arguments_may_be_left_out(name, function):
    """Every public name of every module, called with what must be given, and with all of it."""
    called = getattr(importlib.import_module(f"resample_layers.compat.{name}"), function)
    if function == "no_weight_gradients":
        with called(), called(disable=True):
            return
    if function in ("conv2d", "conv_transpose2d"):  # torch's own
        assert called is getattr(F, function)
        return
    if not callable(called):  # a table, or a module whose names are in the list themselves
        assert function in ("activation_funcs", "conv2d_gradfix")
        return
    signature = inspect.signature(called).parameters.values()
    given = {p.name: GIVEN[p.name] for p in signature if p.default is p.empty}
    defaults = {p.name: p.default for p in signature if p.default is not p.empty}
    if function == "UpFirDnSmooth":  # as in the original, which has nothing to do
        with pytest.raises(NotImplementedError):
            called(**given)
        return
    results = [called(**given), called(**given, **defaults), called(*given.values())]
    if isinstance(called, type):
        x = images(2, 3, 9) if name == "bigvgan" else images()
        results = [module.double()(x) for module in results]
    assert results[0].numel() > 0
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_activation_funcs_as_clients_read_them():
    """``def_gain``, ``def_alpha`` and ``func``, called with and without ``alpha``."""
    x = images(5)
    for act, (function, gain) in ACTIVATIONS.items():
        spec = nvidia.activation_funcs[act]
        assert spec.def_gain == spec["def_gain"] == pytest.approx(gain, rel=1e-15)
        assert spec.def_alpha == spec["def_alpha"] == (0.2 if act == "lrelu" else 0)
        expected = torch.from_numpy(np.asarray(function(x.numpy(), 0.3)))
        torch.testing.assert_close(spec.func(x, alpha=0.3), expected)
        if act != "lrelu":
            torch.testing.assert_close(spec.func(x), expected)
    assert list(nvidia.activation_funcs) == list(ACTIVATIONS)


@pytest.mark.parametrize("peer", ["ada", "stylegan3", "mmcv"])
def test_the_original_s_activation_funcs(peer, originals):
    x, theirs = images(5), originals(peer)["activation_funcs"]
    assert list(theirs) == list(nvidia.activation_funcs)
    for act, spec in theirs.items():
        ours = nvidia.activation_funcs[act]
        assert (ours.def_alpha, ours.def_gain) == (spec.def_alpha, spec.def_gain)
        torch.testing.assert_close(ours.func(x, alpha=0.3), spec.func(x, alpha=0.3))


@pytest.mark.parametrize("number", [2, np.float32(2), np.float64(2), torch.tensor(2.0)])
def test_what_acts_as_a_number(number):
    """As in NVIDIA's: its networks pass the square roots of numpy."""
    x, f = images(), torch.tensor(UNEVEN, dtype=torch.float64)
    for module in (nvidia, mmcv):
        torch.testing.assert_close(module.filter2d(x, f, gain=number), 2 * module.filter2d(x, f))
        for act in ("lrelu", "tanh"):
            torch.testing.assert_close(
                module.bias_act(x, act=act, gain=number, clamp=number),
                module.bias_act(x, act=act, gain=2.0, clamp=2.0),
            )
    assert torch.equal(nvidia.setup_filter(TAPS, gain=number), nvidia.setup_filter(TAPS, gain=2.0))


@pytest.mark.parametrize("clamp", [float("inf"), np.inf, torch.tensor(float("inf"))])
@pytest.mark.parametrize("act", ["linear", "lrelu"])
def test_an_infinite_clamp_clamps_nothing(act, clamp):
    x = 1e30 * images(1, 2, 40, 30)
    expected = nvidia.bias_act(x, act=act)
    torch.testing.assert_close(nvidia.bias_act(x, act=act, clamp=clamp), expected)


@pytest.mark.parametrize("module", [rosinality, basicsr])
def test_kernels_of_one_dimension_are_separable(module):
    """As in our op: the originals raise."""
    x, taps = images(), torch.tensor(TAPS, dtype=torch.float64)
    expected = formula(x, TAPS, (2, 2), pads=(2, 1, 2, 1))
    torch.testing.assert_close(module.upfirdn2d(x, taps, up=2, pad=(2, 1)), expected)


# Checkpoints


def theirs_rosinality(kernel, scale=1.0):
    """A module with rosinality's buffer, by its published key and value."""
    module = nn.Module()
    kernel = np.asarray(kernel, np.float32)
    kernel = np.outer(kernel, kernel) if kernel.ndim == 1 else kernel
    module.register_buffer("kernel", torch.from_numpy(kernel / kernel.sum() * np.float32(scale)))
    return module


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: rosinality.Upsample(TAPS), theirs_rosinality(TAPS, 4)),
        (lambda: rosinality.Upsample([1, 2, 5], 3), theirs_rosinality([1, 2, 5], 9)),
        (lambda: rosinality.Downsample(TAPS), theirs_rosinality(TAPS)),
        (lambda: rosinality.Blur(TAPS, (2, 1)), theirs_rosinality(TAPS)),
        (lambda: rosinality.Blur(UNEVEN, (2, 1), 2), theirs_rosinality(UNEVEN, 4)),
    ],
)
def test_rosinality_s_checkpoints(ours, theirs):
    ours = ours()
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    torch.testing.assert_close(state["kernel"], theirs.kernel, rtol=1e-6, atol=0)
    theirs.load_state_dict(state)
    other = theirs_rosinality(torch.randn(ours.kernel.shape).numpy())
    ours.load_state_dict(other.state_dict())
    assert torch.equal(ours.kernel, other.kernel)
    x = images(dtype=torch.float32)
    rates = (getattr(ours, "factor", 1),)
    if isinstance(ours, rosinality.Upsample):
        rates = (*rates, 1)
    elif isinstance(ours, rosinality.Downsample):
        rates = (1, *rates)
    expected = ops.upfirdn2d(x, other.kernel, *rates, pad=ours.pad)
    torch.testing.assert_close(ours(x), expected)  # what was loaded is what is applied


def test_basicsr_s_layers_put_nothing_into_checkpoints():
    for module in (
        basicsr.UpFirDnUpsample(TAPS),
        basicsr.UpFirDnDownsample(TAPS, 2),
        basicsr.UpFirDnSmooth(TAPS, downsample_factor=2, kernel_size=3),
    ):
        assert not module.state_dict()
        module.load_state_dict({})
    assert list(basicsr.FusedLeakyReLU(3).state_dict()) == ["bias"]
    assert list(mmcv.FusedBiasLeakyReLU(3).state_dict()) == ["bias"]
    assert list(rosinality.FusedLeakyReLU(3).state_dict()) == ["bias"]


@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("kind", ["Snake", "SnakeBeta"])
def test_bigvgan_s_checkpoints(kind, log_scale):
    """Names and shapes are the original's; whoever keeps no filters in the state loads too."""
    act = getattr(bigvgan, kind)(3, alpha_logscale=log_scale)
    net = nn.Sequential(bigvgan.Activation1d(act))
    filter = torch.tensor([0.00202897, 0.00938946, -0.02554346, -0.05765738, 0.12857261, 0.4432098])
    filter = torch.cat([filter, filter.flip(0)]).reshape(1, 1, 12)
    names = ["alpha", "beta"][: 1 + (kind == "SnakeBeta")]
    state = {f"0.act.{name}": torch.rand(3) for name in names}
    filters = {"0.upsample.filter": filter, "0.downsample.lowpass.filter": filter}
    assert list(net.state_dict()) == [*state, *filters]
    for key in filters:
        torch.testing.assert_close(net.state_dict()[key], filter, rtol=0, atol=1e-7)
    for assign in (False, True):
        net.load_state_dict({**state, **filters}, assign=assign)
        for key, value in {**state, **filters}.items():
            assert torch.equal(net.state_dict()[key], value)
    with pytest.raises(RuntimeError, match=r"size mismatch for 0\.upsample\.filter"):
        net.load_state_dict({**state, **filters, "0.upsample.filter": filter[..., 1:]})


@pytest.mark.parametrize("assign", [False, True])
def test_checkpoints_without_filters_load_strictly(assign):
    """Some copies register their filters with persistent=False; those here stay what they are."""
    net = nn.Sequential(bigvgan.Activation1d(bigvgan.SnakeBeta(3)))
    state = {"0.act.alpha": torch.rand(3), "0.act.beta": torch.rand(3)}
    designed = net[0].upsample.filter.clone()
    net.load_state_dict(state, assign=assign)
    assert torch.equal(net[0].act.beta, state["0.act.beta"])
    assert torch.equal(net[0].upsample.filter, designed)
    assert torch.equal(net[0].downsample.lowpass.filter, designed)
    net[0].upsample.filter.fill_(0.5)
    net.load_state_dict(state, assign=assign)
    assert torch.equal(net[0].upsample.filter, torch.full((1, 1, 12), 0.5))
    keys = r'"0\.act\.beta"\. $'  # an activation's parameter is still missed, and no filter is
    with pytest.raises(RuntimeError, match=rf"Missing key\(s\) in state_dict: {keys}"):
        net.load_state_dict({"0.act.alpha": torch.rand(3)}, assign=assign)
    empty = net.to("meta").state_dict()  # no filter that could stay
    missed = r'"0\.upsample\.filter", "0\.downsample\.lowpass\.filter"'
    with pytest.raises(RuntimeError, match=missed):
        net.load_state_dict({key: empty[key] for key in state}, assign=assign)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_filters_of_half_checkpoints(dtype, assign):
    """The designed filter is no worse for having been saved in half; another is what was saved."""
    net = bigvgan.Activation1d(bigvgan.Snake(3))
    designed = net.upsample.filter.clone()
    state = {"act.alpha": torch.rand(3)}
    keys = "upsample.filter", "downsample.lowpass.filter"
    noise = 1e-7 * torch.randn(1, 1, 12)  # the original designs in float32
    other = torch.rand(1, 1, 12)
    for saved, loaded in (
        (designed + noise, designed),
        (other, other.to(dtype).float()),
        (designed * 1.02, (designed * 1.02).to(dtype).float()),
    ):
        state.update({key: saved.to(dtype) for key in keys})
        kept = dict(state)
        net.load_state_dict(state, assign=assign)
        assert state.keys() == kept.keys()
        for key in keys:
            assert state[key] is kept[key]
            assert net.state_dict()[key].dtype == torch.float32
            assert torch.equal(net.state_dict()[key], loaded)
    with pytest.raises(RuntimeError, match=r"size mismatch for upsample\.filter"):
        net.load_state_dict({**state, keys[0]: torch.ones(1, 1, 11, dtype=dtype)})
    with pytest.raises(RuntimeError, match=r"size mismatch for upsample\.filter"):
        net.load_state_dict({**state, keys[0]: torch.ones(12, dtype=dtype)})


def test_filters_survive_every_move():
    """A filter that was loaded too, where the original leaves memory that nobody has written."""
    for loaded in (None, torch.rand(1, 1, 12)):
        for move, dtype in (
            (lambda net: net.to_empty(device="cpu"), torch.float32),
            (lambda net: net.half().to_empty(device="cpu"), torch.float32),
            (lambda net: net.double().to_empty(device="cpu"), torch.float64),
            (lambda net: net.double().half(), torch.float32),
            (lambda net: net.share_memory(), torch.float32),
            (lambda net: copy.deepcopy(net).bfloat16(), torch.float32),
        ):
            net = bigvgan.Activation1d(bigvgan.Snake(3))
            if loaded is not None:
                net.upsample.filter.copy_(loaded)
            expected = net.upsample.filter.to(dtype, copy=True)
            net = move(net)
            assert net.upsample.filter.dtype == dtype
            assert torch.equal(net.upsample.filter, expected)
    assert bigvgan.UpSample1d().share_memory().filter.is_shared()
    layer = bigvgan.UpSample1d()
    layer.filter = layer.filter.half()
    assert layer.half().filter.dtype == torch.float32
    del layer.filter
    layer.filter = nn.Parameter(torch.rand(1, 1, 12))
    layer.half().load_state_dict({"filter": torch.ones(1, 1, 12).half()})
    assert layer.filter.dtype == torch.float16  # the user's parameter is the user's


def test_where_snakes_start():
    assert bigvgan.Snake(2, 0.5).alpha.tolist() == [0.5] * 2
    layer = bigvgan.SnakeBeta(2, 3.0, alpha_trainable=False, alpha_logscale=True)
    torch.testing.assert_close(layer.alpha.exp(), torch.full((2,), 3.0))
    torch.testing.assert_close(layer.beta.exp(), torch.full((2,), 3.0))
    assert not layer.alpha.requires_grad
    assert bigvgan.Snake(2, alpha_logscale=True).alpha.tolist() == [0.0] * 2


def test_other_activations_are_called_between_the_filters():
    """So is a subclass, whose formula may be another; ``fused=False`` calls any."""

    class Louder(bigvgan.Snake):
        def forward(self, x):
            return 2 * super().forward(x)

    x, act = images(2, 3, 9), bigvgan.Snake(3).double()
    for module in (nn.GELU(), Louder(3).double(), act):
        layer = bigvgan.Activation1d(module, fused=module is not act).double()
        expected = layer.downsample(module(layer.upsample(x)))
        torch.testing.assert_close(layer(x), expected)
        plain = bigvgan.Activation1d(act).double()(x)
        assert torch.allclose(layer(x), plain) == (module is act)


def test_a_filter_that_is_put_in_its_place_is_used():
    """As a correlation on the way down, as a transposed convolution on the way up."""
    layer = bigvgan.Activation1d(bigvgan.Snake(3)).double()
    x, taps = images(2, 3, 9), images(2, 12, seed=1)
    layer.upsample.filter.copy_(taps[:1, None])
    layer.downsample.lowpass.filter.copy_(taps[1:, None])
    up, down = taps[:, None, None].expand(2, 3, 1, 12)
    y = F.conv_transpose1d(F.pad(x, (5, 5), "replicate"), up, stride=2, groups=3)
    y = layer.act(2 * y[..., 15:-15])
    y = F.conv1d(F.pad(y, (5, 6), "replicate"), down, stride=2, groups=3)
    torch.testing.assert_close(layer(x), y)
    layer.fused = False
    torch.testing.assert_close(layer(x), y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_vocoders_keep_their_filters(dtype):
    layer = bigvgan.Activation1d(bigvgan.SnakeBeta(3, alpha_logscale=True))
    expected = layer.upsample.filter.clone()
    x = images(2, 3, 50, dtype=torch.float32).to(dtype)
    out = layer.to(dtype)(x)
    assert out.dtype == dtype
    assert layer.act.alpha.dtype == dtype
    for filter in (layer.upsample.filter, layer.downsample.lowpass.filter):
        assert torch.equal(filter, expected)
    assert torch.equal(out, layer.float()(x.float()).to(dtype))
    empty = layer.half().to("meta").to_empty(device="cpu")
    assert torch.equal(empty.upsample.filter, expected)
    assert empty.double().upsample.filter.dtype == torch.float64


# Derivatives and compilers


SMOOTH = [
    ("rosinality.upfirdn2d", lambda x, k: rosinality.upfirdn2d(x, k, 2, 1, (2, 1))),
    ("a device", lambda x, k: rosinality.upfirdn2d(x, k, 2, 1, (2, 1), "cpu")),
    ("basicsr.upfirdn2d", lambda x, k: basicsr.upfirdn2d(x, k, 1, 2, (2, 1))),
    ("nvidia.upfirdn2d", lambda x, k: nvidia.upfirdn2d(x, k, [2, 1], 1, [2, 1], True, 3.0)),
    ("nvidia separable", lambda x, k: nvidia.upsample2d(x, k[0], gain=-2.0)),
    ("mmcv.upfirdn2d", lambda x, k: mmcv.upfirdn2d(x, k, 1, [1, 2], 2)),
    ("conv2d_resample up", lambda x, k: nvidia.conv2d_resample(x, k[None, None], k, up=2)),
    ("conv2d_resample down",
     lambda x, k: nvidia.conv2d_resample(x, k[None, None], k, down=2, padding=1)),
    ("bias_act", lambda x, k: nvidia.bias_act(x, k[0, :1], act="swish")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function"), SMOOTH, ids=[name for name, _ in SMOOTH])
def test_gradients_to_the_third_order(name, function):
    """In the image and in the kernel, which the originals refuse or drop."""
    x = images(1, 1, 4, 3).requires_grad_()
    k = images(2, 2, seed=1).requires_grad_()
    torch.autograd.gradcheck(function, (x, k))
    torch.autograd.gradgradcheck(function, (x, k))

    def first_two(x, k):
        grads = torch.autograd.grad(function(x, k).pow(4).sum(), (x, k), create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in grads), (x, k), create_graph=True)

    torch.autograd.gradcheck(first_two, (x, k), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        *SMOOTH,
        ("Upsample", None),
        ("Smooth", None),
        ("lrelu", lambda x, k: nvidia.bias_act(x, k[0, :1], act="lrelu", clamp=0.5)),
        ("fused", lambda x, k: mmcv.fused_bias_leakyrelu(x, k[0, :1])),
        ("filtered_lrelu", lambda x, k: nvidia.filtered_lrelu(x, k, k[0], k[0, :1], 2, 2, 3)),
        ("Activation1d", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_compiles_in_one_graph(name, function):
    x = images(1, 1, 8, 6, dtype=torch.float32).requires_grad_()
    k = images(2, 2, dtype=torch.float32, seed=1)
    modules = {
        "Upsample": lambda: rosinality.Upsample(TAPS),
        "Smooth": lambda: basicsr.UpFirDnSmooth(TAPS, downsample_factor=2),
        "Activation1d": lambda: bigvgan.Activation1d(bigvgan.SnakeBeta(8)),
    }
    if name in modules:  # built outside, as modules are
        module, shape = modules[name](), x.shape[1 if name == "Activation1d" else 0 :]
        function = lambda x, k: module(x.reshape(shape))  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    out, expected = compiled(x, k), function(x, k)
    torch.testing.assert_close(out, expected)
    grad, expected_grad = (torch.autograd.grad(o.sin().sum(), x)[0] for o in (out, expected))
    torch.testing.assert_close(grad, expected_grad)


# Of the functions; layers are made before they are traced
TRACED = [
    c for c in CALLS if inspect.isfunction(getattr(getattr(compat, c.convention), c.function, 0))
]


@pytest.mark.parametrize("call", TRACED, ids=lambda call: call.name)
def test_a_tracer_follows_every_function(call):
    """To it, sizes are tensors; a size that was compared would be fixed, with a TracerWarning."""
    image, rest = call.inputs()

    def function(x):
        return OURS[call.convention][call.function](x, *rest, **call.arguments)

    traced = torch.jit.trace(function, image, check_trace=False)
    larger = image.repeat(2, 1, 2, 1) if image.dim() == 4 else image
    for x in (image, larger):
        assert_near(traced(x), function(x))


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")
def test_onnx_s_older_exporter_follows_a_convolution():
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"no {name}")
    import onnxruntime

    class Block(nn.Module):
        def forward(self, x, w, f):
            x = nvidia.conv2d_resample(x, w, f, up=2, padding=1)
            x = nvidia.bias_act(x, w[:, 0, 0, 0], act="lrelu", clamp=1.0)
            return nvidia.downsample2d(nvidia.filter2d(x, f[0]), None)

    x, w, f = (images(*size, dtype=torch.float32) for size in ((2, 3, 6, 5), (4, 3, 3, 3), (4, 4)))
    file = io.BytesIO()
    torch.onnx.export(Block(), (x, w, f), file, dynamo=False, input_names=["x", "w", "f"],
                      dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}})  # fmt: skip
    session = onnxruntime.InferenceSession(file.getvalue())
    for size in ((2, 3, 6, 5), (1, 3, 7, 9)):
        x = images(*size, dtype=torch.float32)
        (out,) = session.run(None, {"x": x.numpy(), "w": w.numpy(), "f": f.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), Block()(x, w, f), rtol=1e-5, atol=1e-5)


def test_one_graph_serves_all_sizes():
    counter = CompileCounterWithBackend("aot_eager")
    w, f = images(3, 2, 3, 3, dtype=torch.float32), torch.ones(4, 4) / 16

    def block(x):
        x = nvidia.conv2d_resample(x, w, f, up=2, padding=1)
        x = nvidia.bias_act(x, w[:, 0, 0, 0], act="lrelu", clamp=1.0)
        return nvidia.downsample2d(rosinality.upfirdn2d(x, f, up=2, pad=(2, 1)), f)

    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=counter)
    graphs = []
    for size in ((5, 2, 6, 9), (3, 2, 13, 7), (4, 2, 8, 16)):
        x = images(*size, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), block(x))
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1]  # the first call may try twice: Dynamo's floats


def test_no_weight_gradients_still_gives_the_images_theirs():
    """R1 as the originals' training loops write it."""
    x, w = images(1, 2, 5, 4).requires_grad_(), images(3, 2, 3, 3, seed=1).requires_grad_()
    out = rosinality.conv2d_gradfix.conv2d(x, w, None, 1, 1)
    torch.testing.assert_close(out, F.conv2d(x, w, padding=1))
    with rosinality.conv2d_gradfix.no_weight_gradients():
        (grad,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
    grad.pow(2).sum().backward()
    expected = torch.autograd.functional.jacobian(
        lambda w: torch.autograd.grad(F.conv2d(x, w, padding=1).pow(2).sum(), x, create_graph=True)[
            0
        ].pow(2).sum(),
        w,
    )  # fmt: skip
    torch.testing.assert_close(w.grad, expected)


def test_fma():
    """Of whatever torch multiplies and adds: other dtypes too, and numbers of the CPU elsewhere."""
    a, b, c = images(2, 1, 1), images(2, 3, 4, seed=1), images(3, 1, seed=2)
    torch.testing.assert_close(nvidia.fma(a, b, c), a * b + c)
    ints = torch.arange(3)
    assert torch.equal(nvidia.fma(ints, ints, ints), ints * ints + ints)
    assert torch.equal(nvidia.fma(ints > 0, ints, ints > 1), torch.tensor([0, 1, 3]))
    assert torch.equal(nvidia.fma(ints * 1j, ints * 1j, ints), ints - ints * ints + 0j)
    elsewhere, number = torch.ones(2, 3, device="meta"), torch.tensor(2.0)
    for args in ((number, elsewhere, elsewhere), (elsewhere, number, number)):
        out = nvidia.fma(*args)
        assert (out.device.type, out.shape) == ("meta", (2, 3))
    with pytest.raises(ValueError, match="c must be on the device of b, got c on cpu and b on me"):
        nvidia.fma(number, elsewhere, torch.ones(3))


# Other values that the originals take for a bool, a number or pads


def flags(value):
    """The numbers in four values that count the same in a condition."""
    return [torch.tensor(value), torch.full((1, 1), value), np.bool_(value), np.full(1, value)]


@pytest.mark.parametrize("value", [True, False])
def test_flags_are_what_they_are_in_a_condition(value):
    f, w = torch.tensor(UNEVEN), torch.arange(54.0).reshape(3, 2, 3, 3)
    x = torch.arange(40.0).reshape(1, 2, 4, 5)

    def results(flag):
        return [
            nvidia.setup_filter(EIGHT, separable=flag, normalize=flag, flip_filter=flag),
            nvidia.upfirdn2d(x, f, flip_filter=flag),
            nvidia.filtered_lrelu(x, f, flip_filter=flag),
            nvidia.conv2d_resample(x, w, f, flip_weight=flag, flip_filter=flag),
            mmcv.filter2d(x, f, flip_filter=flag),
            bigvgan.LowPassFilter1d(padding=flag)(torch.ones(1, 1, 20)),
            bigvgan.Snake(2, 3.0, alpha_logscale=flag, alpha_trainable=flag).alpha,
        ]

    given = [*flags(value), *([] if value else [0, 0.0])]
    expected = results(value)
    for flag in given:
        for one, other in zip(results(flag), expected, strict=True):
            assert torch.equal(one, other)
            assert one.requires_grad == other.requires_grad
    for flag in flags(value):
        assert (rosinality.FusedLeakyReLU(2, flag).bias is not None) == value


def test_none_is_a_flag():
    x, f, w = torch.arange(40.0).reshape(1, 2, 4, 5), torch.tensor(UNEVEN), torch.randn(3, 2, 3, 3)
    for one, other in (
        (nvidia.setup_filter(UNEVEN, normalize=None), nvidia.setup_filter(UNEVEN, normalize=False)),
        (nvidia.upfirdn2d(x, f, flip_filter=None), nvidia.upfirdn2d(x, f)),
        (nvidia.conv2d_resample(x, w, flip_weight=None),
         nvidia.conv2d_resample(x, w, flip_weight=False)),
        (bigvgan.Snake(2, alpha_logscale=None).alpha, bigvgan.Snake(2).alpha),
    ):  # fmt: skip
        assert torch.equal(one, other)
    assert not bigvgan.Snake(2, alpha_trainable=None).alpha.requires_grad
    assert rosinality.FusedLeakyReLU(2, None).bias is None


def test_activation_1d_calls_any_function():
    x = torch.randn(1, 2, 30)
    for function, module in ((F.gelu, nn.GELU()), (lambda x: x.relu(), nn.ReLU())):
        assert torch.equal(bigvgan.Activation1d(function)(x), bigvgan.Activation1d(module)(x))


def test_numbers_and_pads_that_stand_for_others():
    """What ``float`` reads in NVIDIA's ``bias_act``, ints of other kinds, bools, and arrays."""
    x, b = torch.randn(1, 2, 4, 5), torch.tensor([1.0, 2.0])
    for module in (nvidia, mmcv):
        expected = module.bias_act(x, b, 1, "lrelu", alpha=0.2, gain=1.0)
        for alpha, gain in (("0.2", True), (np.array(0.2), "1"), (Decimal("0.2"), np.float32(1))):
            for dim in (np.int64(1), True, torch.tensor(1)):
                assert torch.equal(module.bias_act(x, b, dim, "lrelu", alpha, gain), expected)
    assert torch.equal(nvidia.bias_act(x, b[:1], np.uint8(0)), x + 1)
    assert torch.equal(nvidia.upfirdn2d(x, K, gain=True), nvidia.upfirdn2d(x, K))
    assert torch.equal(nvidia.setup_filter(TAPS, gain=True), nvidia.setup_filter(TAPS))
    filtered = nvidia.filtered_lrelu(x, K, gain=True, slope=False, clamp=True)
    assert torch.equal(filtered, nvidia.filtered_lrelu(x, K, gain=1.0, slope=0.0, clamp=1.0))
    pads = np.array([1, 2])
    expected = ops.upfirdn2d(x, K, pad=(1, 2))
    assert torch.equal(basicsr.upfirdn2d(x, K, pad=pads), expected)
    assert torch.equal(rosinality.upfirdn2d(x, K, pad=pads), expected)
    resampled = rosinality.upfirdn2d(
        x, K, np.array([2, 3]), np.array([3, 1]), np.array([1, 2, 3, 4])
    )
    assert torch.equal(resampled, ops.upfirdn2d(x, K, (2, 3), (3, 1), (1, 2, 3, 4)))
    blurs = [rosinality.Blur(TAPS, given)(x) for given in (pads, (1, 2))]
    assert torch.equal(*blurs)


# What the originals get wrong without a word, and other errors


def test_setup_filter_is_on_the_device_that_it_is_given():
    """By default the CPU, where ``torch.device`` as a context names another."""
    given = torch.tensor(TAPS)
    expected = nvidia.setup_filter(TAPS)
    with torch.device("meta"):
        for taps in (TAPS, np.array(TAPS), given, tuple(TAPS)):
            assert torch.equal(nvidia.setup_filter(taps), expected)
        assert nvidia.setup_filter(None).device.type == "cpu"
        assert nvidia.setup_filter(TAPS, "meta").is_meta
    with torch._subclasses.FakeTensorMode():  # no values, and what they must be is not checked
        assert nvidia.setup_filter(TAPS).shape == (4, 4)


def test_setup_filter_leaves_what_it_is_given():
    given = torch.tensor(UNEVEN)
    before = given.clone()
    nvidia.setup_filter(given, gain=2.0)
    assert torch.equal(given, before)


IMAGE, K, SILENCE = torch.ones(1, 2, 4, 5), torch.ones(2, 3), torch.ones(1, 2, 0)
SQUARE = ("must be square, got 2x3: the original pads both axes by the height; the layers of "
          "resample_layers pad each by its own")  # fmt: skip
ERRORS = [
    # rosinality
    (lambda: rosinality.Upsample(UNEVEN), ValueError, f"kernel {SQUARE}"),
    (lambda: rosinality.Downsample(UNEVEN), ValueError, f"kernel {SQUARE}"),
    (lambda: rosinality.Upsample([1, -1]), ValueError, "kernel must not sum to zero, got [1, -1]"),
    (lambda: rosinality.make_kernel([1, -1]), ValueError, "k must not sum to zero, got [1, -1]"),
    (lambda: rosinality.Upsample(TAPS, (2, 2)), TypeError,
     "factor must be an int for both axes, got factor=(2, 2)"),
    (lambda: rosinality.Blur(TAPS, (2, 1), 0), ValueError,
     "upsample_factor must be >= 1 in both axes, got upsample_factor=0"),
    (lambda: rosinality.Blur(TAPS, 2), TypeError,
     "pad must be 2 ints (before, after) for both axes or 4 ints (x0, x1, y0, y1), got pad=2 "
     "(int)"),
    (lambda: rosinality.Blur(TAPS, (2, 1, 1)), ValueError,
     "pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), got 3: pad=(2, 1, 1)"),
    (lambda: rosinality.FusedLeakyReLU(3, 0.1), TypeError,
     "bias must be True or False, got bias=0.1: a slope goes by name, negative_slope"),
    (lambda: rosinality.FusedLeakyReLU(3.0), TypeError, "channel must be an int, got channel=3.0"),
    (lambda: rosinality.FusedLeakyReLU(3, True, "0.2"), TypeError,
     "negative_slope must be a number, got negative_slope='0.2'"),
    (lambda: rosinality.FusedLeakyReLU(3, scale=float("nan")), ValueError,
     "scale must be finite, got scale=nan"),
    (lambda: rosinality.fused_leaky_relu(IMAGE, None, scale=float("inf")), ValueError,
     "scale must be finite, got scale=inf"),
    *((call, ValueError, "device must be the name of one, got device='gpu'") for call in (
        lambda: rosinality.upfirdn2d(IMAGE, K, device="gpu"),
        lambda: rosinality.fused_leaky_relu(IMAGE, None, device="gpu"),
        lambda: rosinality.FusedLeakyReLU(3, device="gpu"),
    )),
    (lambda: rosinality.upfirdn2d(IMAGE, K, pad=(1, 1, 1)), ValueError,
     "pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), got 3: pad=(1, 1, 1)"),
    # nvidia: the same at every rate
    *((lambda up=up: nvidia.conv2d_resample(torch.ones(1, 6, 4, 5), torch.ones(3, 2, 3, 3), K,
                                            up=up, padding=1, groups=2), ValueError,
       "w must be [C_out, C_in / groups, kh, kw] with C_out a multiple of groups and the C_in of "
       "x, got w of shape (3, 2, 3, 3), x of shape (1, 6, 4, 5), groups=2") for up in (1, 2)),
    # basicsr
    (lambda: basicsr.upfirdn2d(IMAGE, K, pad=(2, 1, 2, 0)), ValueError,
     "pad must be 2 ints (before, after) for both axes, got pad=(2, 1, 2, 0): the original "
     "ignores all but the first two; resample_layers.ops.upfirdn2d takes 4"),
    (lambda: basicsr.upfirdn2d(IMAGE, K, pad=(2, 1, 0)), ValueError,
     "pad must be 2 ints (before, after) for both axes, got pad=(2, 1, 0): the original "
     "ignores all but the first two; resample_layers.ops.upfirdn2d takes 4"),
    (lambda: basicsr.FusedLeakyReLU(3, True), TypeError,
     "negative_slope must be a number, got negative_slope=True"),
    (lambda: basicsr.fused_leaky_relu(IMAGE), TypeError,
     "fused_leaky_relu() missing 1 required positional argument: 'bias'"),
    (lambda: basicsr.upfirdn2d(IMAGE, K, up=(2, 2)), TypeError,
     "up must be an int for both axes, got up=(2, 2)"),
    (lambda: basicsr.upfirdn2d(IMAGE, K, down=[2, 2]), TypeError,
     "down must be an int for both axes, got down=[2, 2]"),
    (lambda: basicsr.UpFirDnUpsample(UNEVEN), ValueError, f"resample_kernel {SQUARE}"),
    (lambda: basicsr.UpFirDnDownsample(UNEVEN), ValueError, f"resample_kernel {SQUARE}"),
    (lambda: basicsr.UpFirDnSmooth(UNEVEN, 2), ValueError, f"resample_kernel {SQUARE}"),
    (lambda: basicsr.make_resample_kernel([1, -1]), ValueError,
     "k must not sum to zero, got [1, -1]"),
    (lambda: basicsr.UpFirDnSmooth(TAPS), NotImplementedError,
     "one of upsample_factor and downsample_factor must be above 1, got 1 and 1; "
     "resample_layers.UpFirDnSmooth takes both"),
    (lambda: basicsr.UpFirDnSmooth(TAPS, 3, kernel_size=3), ValueError,
     "upsample_factor must be 1 or 2, got 3: the original's image is 1 too small; "
     "resample_layers.UpFirDnSmooth restores the size"),
    (lambda: basicsr.UpFirDnSmooth(TAPS, 2, 2), ValueError,
     "only one of upsample_factor and downsample_factor may be above 1, got upsample_factor=2, "
     "downsample_factor=2"),
    # nvidia
    (lambda: nvidia.upfirdn2d(IMAGE, K, impl="native"), ValueError,
     "impl must be 'ref' or 'cuda', got impl='native'"),
    (lambda: nvidia.filter2d(IMAGE, K, impl=None), ValueError,
     "impl must be 'ref' or 'cuda', got impl=None"),
    (lambda: nvidia.upsample2d(IMAGE, K, impl="CUDA"), ValueError,
     "impl must be 'ref' or 'cuda', got impl='CUDA'"),
    (lambda: nvidia.downsample2d(IMAGE, K, impl=""), ValueError,
     "impl must be 'ref' or 'cuda', got impl=''"),
    (lambda: nvidia.bias_act(IMAGE, impl="x"), ValueError,
     "impl must be 'ref' or 'cuda', got impl='x'"),
    (lambda: nvidia.upfirdn2d([1.0], K), TypeError,
     "x must be a floating-point tensor [N, C, H, W], got list"),
    (lambda: nvidia.upfirdn2d(IMAGE.int(), K), TypeError,
     "x must be a floating-point tensor [N, C, H, W], got torch.int32"),
    (lambda: nvidia.upfirdn2d(IMAGE[0], K), ValueError,
     "x must be [N, C, H, W], got shape (2, 4, 5)"),
    (lambda: nvidia.upfirdn2d(IMAGE, [1.0, 3.0]), TypeError,
     "f must be a floating-point tensor or None, got list"),
    (lambda: nvidia.upfirdn2d(IMAGE, K.int()), TypeError,
     "f must be a floating-point tensor or None, got torch.int32"),
    (lambda: nvidia.upfirdn2d(IMAGE, K[None]), ValueError,
     "f must be [kh, kw] or [taps] with at least one tap, got shape (1, 2, 3)"),
    (lambda: nvidia.upfirdn2d(IMAGE, K.to("meta")), ValueError,
     "f must be on the device of x, got f on meta and x on cpu"),
    (lambda: nvidia.upfirdn2d(IMAGE, torch.ones(0)), ValueError,
     "f must be [kh, kw] or [taps] with at least one tap, got shape (0,)"),
    (lambda: nvidia.upfirdn2d(IMAGE, K, padding=(1, 1, 1)), ValueError,
     "padding must be an int, 2 ints [x, y] or 4 ints [x0, x1, y0, y1], got padding=(1, 1, 1)"),
    (lambda: nvidia.upfirdn2d(IMAGE, K, padding=1.5), TypeError,
     "padding must be made of ints of 32 bits, got padding=1.5"),
    (lambda: nvidia.upfirdn2d(IMAGE, K, padding=[1, True]), TypeError,
     "padding must be made of ints of 32 bits, got padding=[1, True]"),
    (lambda: nvidia.upfirdn2d(IMAGE, K, gain="2"), TypeError,
     "gain must be a number, got gain='2'"),
    (lambda: nvidia.upfirdn2d(IMAGE, K, gain=float("nan")), ValueError,
     "gain must be finite, got gain=nan"),
    (lambda: nvidia.upfirdn2d(IMAGE, torch.ones(9, 9), padding=[1, 0]), ValueError,
     "output must be at least 1x1 (height x width), got -4x-1 from x 4x5, f 9x9, up=1, down=1, "
     "padding=(1, 1, 0, 0)"),
    (lambda: nvidia.upsample2d(IMAGE, K, [2, 1], -3), ValueError,
     "output must be at least 1x1 (height x width), got -2x4 from x 4x5, f 2x3, up=[2, 1], "
     "down=1, padding=(-3, -3, -3, -3)"),
    (lambda: nvidia.conv2d_resample(IMAGE, torch.ones(2, 2, 7, 3), K), ValueError,
     "output must be at least 1x1 (height x width), got -2x3 from x 4x5, w 7x3, f 2x3, up=1, "
     "down=1, padding=(0, 0, 0, 0)"),
    (lambda: nvidia.conv2d_resample(IMAGE, torch.ones(2, 2, 9, 3), K, 2, 3, [0, -1]), ValueError,
     "output must be at least 1x1 (height x width), got -1x2 from x 4x5, w 9x3, f 2x3, up=2, "
     "down=3, padding=(0, 0, -1, -1)"),
    (lambda: nvidia.conv2d_resample(IMAGE, torch.ones(2, 2, 3, 3, device="meta")), ValueError,
     "w must be on the device of x, got w on meta and x on cpu"),
    (lambda: nvidia.upsample2d(IMAGE, K, up=0), ValueError,
     "up must be >= 1 in both axes, got up=0"),
    (lambda: nvidia.setup_filter([1, -1]), ValueError,
     "f must not sum to zero, got [1.0, -1.0]"),
    (lambda: nvidia.setup_filter([1, float("inf")], normalize=False), ValueError,
     "f must be finite, got [1, inf]"),
    (lambda: nvidia.setup_filter(EIGHT, gain=-4), ValueError,
     "gain must be >= 0 for a separable filter, got gain=-4.0"),
    (lambda: nvidia.setup_filter(UNEVEN, separable=True), ValueError,
     "f must be [taps] for separable=True, got shape (2, 3)"),
    (lambda: nvidia.setup_filter("box"), TypeError,
     "f must be [kh, kw], [taps], one number or None, as a list, array or tensor of real numbers, "
     "got 'box'"),
    (lambda: nvidia.setup_filter([[1, 2], [3]]), ValueError,
     "f must be [kh, kw], [taps], one number or None, as a list, array or tensor of real numbers, "
     "got [[1, 2], [3]]"),
    (lambda: nvidia.setup_filter([1j]), TypeError,
     "f must be [kh, kw], [taps], one number or None, as a list, array or tensor of real numbers, "
     "got [1j]"),
    (lambda: nvidia.setup_filter(np.array([1j])), TypeError,
     "f must be [kh, kw], [taps], one number or None, as a list, array or tensor of real numbers, "
     "got array([0.+1.j])"),
    (lambda: nvidia.setup_filter(torch.tensor([1j])), TypeError,
     "f must be [kh, kw], [taps], one number or None, as a list, array or tensor of real numbers, "
     "got tensor([0.+1.j])"),
    (lambda: nvidia.setup_filter(K.to("meta")), ValueError,
     "f must hold values, got a tensor on the meta device"),
    (lambda: nvidia.setup_filter(TAPS, "gpu"), ValueError,
     "device must be the name of one, got device='gpu'"),
    (lambda: nvidia.setup_filter(TAPS, gain=None), TypeError,
     "gain must be a number, got gain=None"),
    (lambda: nvidia.setup_filter([]), ValueError,
     "f must be [kh, kw], [taps], one number or None, with at least one tap, got shape (0,)"),
    (lambda: nvidia.setup_filter([[[1.0]]]), ValueError,
     "f must be [kh, kw], [taps], one number or None, with at least one tap, got shape (1, 1, 1)"),
    (lambda: nvidia.bias_act(IMAGE, act="elu", alpha=0.5), ValueError,
     "alpha must be None for act='elu', which ignores it, got 0.5"),
    (lambda: nvidia.bias_act(IMAGE, act=None), ValueError,
     "act must be one of linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish, "
     "got act=None"),
    (lambda: nvidia.bias_act(IMAGE, clamp=-1), ValueError,
     "clamp must be >= 0 or None, got clamp=-1.0"),
    (lambda: nvidia.bias_act(IMAGE, clamp=float("nan")), ValueError,
     "clamp must be a number or infinite, got clamp=nan"),
    (lambda: nvidia.bias_act(IMAGE, clamp=float("-inf")), ValueError,
     "clamp must be >= 0 or None, got clamp=-inf"),
    (lambda: nvidia.bias_act(IMAGE, gain=float("inf")), ValueError,
     "gain must be finite, got gain=inf"),
    (lambda: nvidia.bias_act(IMAGE, gain=torch.ones(2)), TypeError,
     "gain must be a number, got gain=tensor([1., 1.])"),
    (lambda: nvidia.bias_act(IMAGE, gain=torch.tensor(2.0, requires_grad=True)), ValueError,
     "gain must be a number, which gets no gradient, got gain=tensor(2., requires_grad=True)"),
    *((lambda act=act: nvidia.bias_act(IMAGE, torch.ones(2, device="meta"), act=act), ValueError,
       "b must be on the device of x, got b on meta and x on cpu") for act in ("lrelu", "tanh")),
    (lambda: nvidia.bias_act(IMAGE, torch.ones(3)), ValueError,
     "b must be a vector as long as dimension 1 of x, got b of shape (3,) and x of shape "
     "(1, 2, 4, 5)"),
    (lambda: nvidia.bias_act(IMAGE, torch.ones(5), dim=-1), ValueError,
     "dim must be an int in [0, 4), got dim=-1"),
    (lambda: nvidia.bias_act(IMAGE, [1.0, 2.0]), TypeError,
     "b must be a floating-point tensor or None, got list"),
    (lambda: nvidia.bias_act(IMAGE.int()), TypeError,
     "x must be a floating-point tensor, got torch.int32"),
    (lambda: nvidia.conv2d_resample(IMAGE, torch.ones(2, 2, 3, 3), up=(2, 2)), TypeError,
     "up must be an int for both axes, got up=(2, 2)"),
    (lambda: nvidia.conv2d_resample(IMAGE, torch.ones(2, 2)), ValueError,
     "w must be [C_out, C_in / groups, kh, kw], got shape (2, 2)"),
    (lambda: nvidia.filtered_lrelu(IMAGE, K, gain=0), ValueError, "gain must be > 0, got gain=0.0"),
    (lambda: nvidia.filtered_lrelu(IMAGE, K, slope=-1), ValueError,
     "slope must be >= 0, got slope=-1.0"),
    (lambda: nvidia.filtered_lrelu(IMAGE, K, clamp=0), ValueError,
     "clamp must be > 0 or None, got clamp=0"),
    (lambda: nvidia.filtered_lrelu(IMAGE, up=[2, 2]), TypeError,
     "up must be an int for both axes, got up=[2, 2]"),
    (lambda: nvidia.filtered_lrelu(IMAGE, K, [1, 2]), TypeError,
     "fd must be a floating-point tensor or None, got list"),
    (lambda: nvidia.filtered_lrelu(IMAGE, b=torch.ones(3)), ValueError,
     "b must be a vector as long as dimension 1 of x, got b of shape (3,) and x of shape "
     "(1, 2, 4, 5)"),
    (lambda: nvidia.filtered_lrelu(IMAGE, impl="gpu"), ValueError,
     "impl must be 'ref' or 'cuda', got impl='gpu'"),
    # mmcv
    (lambda: mmcv.filtered_lrelu(IMAGE, K, torch.ones(6), padding=[0, 1]), ValueError,
     "output must be at least 1x1 (height x width), got 0x-2 from input 4x5, filter_up 2x3, "
     "filter_down 6x6, up=1, down=1, padding=(0, 0, 1, 1)"),
    (lambda: mmcv.filtered_lrelu(IMAGE, K.to("meta")), ValueError,
     "filter_up must be on the device of input, got filter_up on meta and input on cpu"),
    # bigvgan
    (lambda: bigvgan.UpSample1d(4, 7), ValueError,
     "kernel_size must be at least twice the ratio, here 8, got kernel_size=7: the original loses "
     "the ends of the signal"),
    (lambda: bigvgan.Activation1d(nn.GELU(), 2, 2, 3), ValueError,
     "kernel_size must be at least twice the ratio, here 4, got kernel_size=3: the original loses "
     "the ends of the signal"),
    (lambda: bigvgan.kaiser_sinc_filter1d(0, 0.3, 12), ValueError,
     "cutoff must lie in (0, 0.5] cycles per sample, got 0"),
    (lambda: bigvgan.LowPassFilter1d(padding_mode="zeros"), ValueError,
     "padding_mode must be one of reflect, replicate, circular, constant, got 'zeros'"),
    (lambda: bigvgan.Snake(3, -1.0, alpha_logscale=True), ValueError,
     "alpha must be > 0 for alpha_logscale=True, got alpha=-1.0"),
    (lambda: bigvgan.Snake(3.0), TypeError, "in_features must be an int, got in_features=3.0"),
    (lambda: bigvgan.DownSample1d((2, 2)), ValueError,
     "ratio must be an int or 1 int (x,), got ratio=(2, 2)"),
    (lambda: bigvgan.UpSample1d(0), ValueError, "ratio must be >= 1, got ratio=0"),
    (lambda: bigvgan.DownSample1d(2, 0), ValueError, "kernel_size must be >= 1, got kernel_size=0"),
    (lambda: bigvgan.LowPassFilter1d(kernel_size=7.0), TypeError,
     "kernel_size must be an int, got kernel_size=7.0"),
    (lambda: bigvgan.LowPassFilter1d(stride=1.5), TypeError,
     "stride must be made of ints, got stride=1.5 (float)"),
    (lambda: bigvgan.kaiser_sinc_filter1d(0.25, 500.0, 12), ValueError,
     "half_width must give a Kaiser window of beta <= 700, got 500.0, which gives beta=7910.67 "
     "with numtaps=12"),
    (lambda: bigvgan.UpSample1d()(SILENCE), ValueError,
     "padding_mode='replicate' needs an input of at least 1 (length), got 0"),
    (lambda: bigvgan.LowPassFilter1d()(SILENCE), ValueError,
     "padding_mode='replicate' needs an input of at least 1 (length), got 0"),
    (lambda: bigvgan.DownSample1d()(SILENCE), ValueError,
     "padding_mode='replicate' needs an input of at least 1 (length), got 0"),
    (lambda: bigvgan.Activation1d(bigvgan.Snake(2), fused=False)(SILENCE), ValueError,
     "padding_mode='replicate' needs an input of at least 1 (length), got 0"),
    (lambda: mmcv.upfirdn2d(IMAGE[0], K), ValueError,
     "input must be [N, C, H, W], got shape (2, 4, 5)"),
    (lambda: mmcv.upfirdn2d(IMAGE, "box"), TypeError,
     "filter must be a floating-point tensor or None, got str"),
    (lambda: mmcv.bias_act(IMAGE, torch.ones(3)), ValueError,
     "bias must be a vector as long as dimension 1 of input, got bias of shape (3,) and input of "
     "shape (1, 2, 4, 5)"),
    (lambda: mmcv.upfirdn2d(IMAGE, torch.ones(5, 9), padding=[1, 0]), ValueError,
     "output must be at least 1x1 (height x width), got 0x-1 from input 4x5, filter 5x9, up=1, "
     "down=1, padding=(1, 1, 0, 0)"),
    (lambda: mmcv.downsample2d(IMAGE, K.to("meta")), ValueError,
     "filter must be on the device of input, got filter on meta and input on cpu"),
    (lambda: mmcv.bias_act(IMAGE, torch.ones(2, device="meta")), ValueError,
     "bias must be on the device of input, got bias on meta and input on cpu"),
    (lambda: mmcv.FusedBiasLeakyReLU(-1), ValueError,
     "num_channels must be >= 0, got num_channels=-1"),
    (lambda: mmcv.FusedBiasLeakyReLU(3, scale=None), TypeError,
     "scale must be a number, got scale=None"),
    (lambda: mmcv.fused_bias_leakyrelu(IMAGE, None, "0.2"), TypeError,
     "negative_slope must be a number, got negative_slope='0.2'"),
    (lambda: mmcv.upfirdn2d(IMAGE, K, pad=(2, 1)), TypeError,
     "upfirdn2d() got an unexpected keyword argument 'pad'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), ERRORS, ids=[e[2][:50] for e in ERRORS])
def test_error(call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        call()


FILTER = nvidia.setup_filter([1, 3, 3, 1])


@pytest.mark.parametrize(
    "call",
    [
        lambda x, b: rosinality.fused_leaky_relu(x, b),
        lambda x, b: basicsr.fused_leaky_relu(x, b),
        lambda x, b: mmcv.fused_bias_leakyrelu(x, b),
        lambda x, b: nvidia.bias_act(x, b, act="lrelu", gain=0.99, clamp=256.5),
        lambda x, b: nvidia.upfirdn2d(x, FILTER, gain=2.5),
        lambda x, b: nvidia.filtered_lrelu(x, FILTER, FILTER, b, 2, 2, 4, 0.99, 0.1, 256.5),
    ],
    ids=["rosinality", "basicsr", "mmcv", "bias_act", "upfirdn2d", "filtered_lrelu"],
)
def test_numbers_that_compilers_take_for_symbols(call):
    x, bias = torch.randn(2, 3, 4, 5), torch.randn(3)
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(x, bias), call(x, bias))
