# SPDX-License-Identifier: BSD-3-Clause
"""The op with its epilogue: values on every path, gradients of every order, doors."""

import math
import random
import re

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from resample_layers import UpFirDnSmooth, UpFirDnUpsample
from resample_layers.compat import nvidia
from resample_layers.ops import (
    bias_act,
    extension,
    fused_leaky_relu,
    native,
    upfirdn2d,
    upfirdn2d_bias_act,
)
from resample_layers.ops.epilogue import Operands, operand_grads

from . import oracle
from .calls import assert_gradients_of_some_are_those_of_all, logged_tensor
from .cases import CASES
from .tools import require_compiler_of

OPS = torch.ops.resample_layers

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# bias, noise of 1 or N samples or none, strength, scale, slope, gain, clamp
EPILOGUES = {
    "all": (True, "N", True, True, 0.2, math.sqrt(2.0), 0.7),
    "StyleGAN2": (True, "N", True, False, 0.2, math.sqrt(2.0), None),
    "shared noise": (False, "1", True, False, 0.3, 0.5, None),
    "noise as it is": (True, "N", False, True, 1.0, 1.0, 1.5),
    "ReLU": (True, None, False, True, 0.0, 2.0, None),
    "activation": (False, None, False, False, 0.2, 1.5, None),
    "scale": (False, None, False, True, 0.2, 1.0, None),
}


def by_function(x, kernel, operands, up, down, pad, *constants):
    *operands, scale = operands
    return upfirdn2d_bias_act(x, kernel, *operands, up, down, pad, *constants, scale=scale)


def by_native(x, kernel, operands, up, down, pad, *constants):
    return native.resample_bias_act(x, *kernel, *operands, up, down, pad, *constants)


def by_native_recorded(x, kernel, operands, *rest):
    return by_native(x.detach().requires_grad_(), kernel, operands, *rest)


def by_autograd(x, kernel, operands, *rest):
    return by_function(x.detach().requires_grad_(), kernel, operands, *rest)


def by_registered(x, kernel, operands, up, down, pad, *constants):
    return OPS.upfirdn2d_bias_act.default(x, *kernel, *operands, up, down, pad, *constants)


PATHS = (by_function, by_native, by_native_recorded, by_autograd, by_registered)


def out_size(case):
    (n, _, h, w), (kh, kw) = case.shape, case.kernel
    out_h = (h * case.up[1] + case.pad[2] + case.pad[3] - kh) // case.down[1] + 1
    out_w = (w * case.up[0] + case.pad[0] + case.pad[1] - kw) // case.down[0] + 1
    return n, out_h, out_w


def draw_operands(epilogue, n, c, out_h, out_w, **kind):
    with_bias, samples, with_strength, with_scale = epilogue[:4]
    bias = torch.randn(c, **kind) if with_bias else None
    noise = None
    if samples:
        noise = torch.randn(1 if samples == "1" else n, 1, out_h, out_w, **kind)
    strength = torch.randn(1, **kind) if with_strength else None
    return bias, noise, strength, torch.randn(n, c, **kind) if with_scale else None


def expected_of(sums, bias, noise, strength, scale, slope, gain, clamp):
    """The formula in NumPy float64."""
    z = sums.copy()
    if scale is not None:
        z *= scale.double().cpu().numpy()[:, :, None, None]
    if noise is not None:
        z += noise.double().cpu().numpy() * (1.0 if strength is None else float(strength))
    if bias is not None:
        z += bias.double().cpu().numpy()[:, None, None]
    z = gain * np.where(z < 0, slope * z, z)
    return z if clamp is None else np.clip(z, -clamp, clamp)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values(case, dtype, layout, device):
    x = torch.randn(case.shape, device=device).to(dtype).contiguous(memory_format=layout)
    kh, kw = case.kernel
    kind = {"device": device, "dtype": torch.float64 if dtype == torch.float64 else torch.float32}
    taps_x, taps_y = torch.randn(kw, **kind), torch.randn(kh, **kind)
    kernel = torch.outer(taps_y, taps_x)
    samples, taps = x.double().cpu().numpy(), kernel.double().cpu().numpy()
    sums = oracle.upfirdn2d(samples, taps, case.up, case.down, case.pad)
    sizes = oracle.upfirdn2d(abs(samples), abs(taps), case.up, case.down, case.pad)
    n, out_h, out_w = out_size(case)
    for name, epilogue in EPILOGUES.items():
        operands = draw_operands(epilogue, n, case.shape[1], out_h, out_w, device=device)
        operands = tuple(t if t is None else t.to(dtype) for t in operands)
        scales = [] if operands[3] is None else operands[3].flatten().tolist()
        largest = max(map(abs, scales), default=0.0)
        expected = expected_of(sums, *operands, *epilogue[4:])
        for path in PATHS:
            for pair in ((kernel, None), (taps_x, taps_y)):
                given = pair
                if path in (by_function, by_autograd):
                    given = kernel if pair[1] is None else pair
                rest = (case.up, case.down, case.pad, *epilogue[4:])
                out = path(x, given, operands, *rest)
                assert out.dtype == dtype
                assert out.shape == expected.shape
                plain = upfirdn2d(x, kernel, case.up, case.down, case.pad)
                assert out.stride() == plain.stride()
                error = abs(out.detach().double().cpu().numpy() - expected)
                reach = max(1.0, largest) * sizes.max(initial=0.0) + 6.0
                limit = oracle.TOLERANCE[dtype] * epilogue[5] * reach
                assert error.max(initial=0.0) <= limit, f"{name}, {path.__name__}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_rounded_once(dtype, path, device):
    """The epilogue acts on the sum, not on what would be stored of it."""
    x = torch.randn(2, 16, 33, 31, device=device).to(dtype)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 8
    bias = -upfirdn2d(x, taps, pad=(2, 1))[0, :, 5, 5].float()  # what is left is all rounding
    kernel = taps if path in (by_function, by_autograd) else (taps, taps)
    rest = ((1, 1), (1, 1), (2, 1, 2, 1), 1.0, 1.0, None)
    out = path(x, kernel, (bias, None, None, None), *rest)
    exact = upfirdn2d(x.double(), taps.double(), pad=(2, 1)) + bias.double()[:, None, None]
    limit = torch.finfo(dtype).eps / 2 * exact.abs() + 1e-6
    assert bool(((out.double() - exact).abs() <= limit).all())


def test_nan_passes_through_to_where_it_belongs(device):
    x, taps = torch.ones(1, 3, 8, 9, device=device), torch.ones(4, device=device)
    noise = torch.zeros(1, 1, 8, 9, device=device)
    noise[0, 0, 3, 5] = math.nan
    x[0, 1, 0, 0] = math.nan
    out = upfirdn2d_bias_act(x, taps, noise=noise, pad=(2, 1), clamp=0.5)
    wanted = upfirdn2d(x, taps, pad=(2, 1)).isnan() | noise.isnan()
    assert torch.equal(out.isnan(), wanted)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_operands_are_never_rounded_to_the_inputs_dtype(dtype, path, device):
    """Float32 noise in a model of half types: beyond float16's range, below bfloat16's spacing."""
    x = torch.zeros(1, 1, 4, 40, device=device).to(dtype)
    one = torch.ones(1, device=device)
    rest = ((1, 1), (1, 1), (0,) * 4, 1.0, 1.0, None)
    kernel = one if path in (by_function, by_autograd) else (one, one)
    for noise, strength, bias, wanted in (
        (70_000.0, 1e-3, 0.0, 70.0),
        (1.0009765625, 1, -1, 2**-10),
    ):
        noise = torch.full((1, 1, 4, 40), noise, device=device)
        out = path(x, kernel, (one * bias, noise, one * strength, None), *rest)
        torch.testing.assert_close(out, torch.full_like(x, wanted))
    large, small = torch.full_like(x, 2**-10), torch.full((1, 1), 70_000.0, device=device)
    out = path(large, kernel, (None, None, None, small), *rest)
    torch.testing.assert_close(out, torch.full_like(x, 70_000 * 2**-10))


def test_only_padding(device):
    """No sample at all: the epilogue of zeros."""
    x = torch.zeros(2, 3, 0, 4, device=device)
    bias = torch.tensor([1.0, -1.0, 0.5], device=device)
    out = upfirdn2d_bias_act(x, torch.ones(2, 2, device=device), bias, pad=(1, 1, 3, 0))
    assert out.shape == (2, 3, 2, 5)
    wanted = torch.tensor([1.0, -0.2, 0.5], device=device) * math.sqrt(2.0)
    torch.testing.assert_close(out, wanted[:, None, None].expand_as(out))


def test_random_configurations_equal_native(device):
    """Up to a few tiles in size, all layouts; what is compiled against its native twin."""
    choose = random.Random(7)
    for _ in range(600):
        dtype = choose.choice(DTYPES)
        kh, kw = choose.choice((1, 2, 3, 4, 7, 12)), choose.choice((1, 2, 4, 5, 8, 13))
        up, down = (tuple(choose.choices((1, 1, 2, 3), k=2)) for _ in range(2))
        pad = tuple(choose.choices(range(-2, 7), k=4))
        n, c = choose.randint(1, 3), choose.choice((1, 2, 3, 5, 16, 33))
        h, w = choose.randint(4, 40), choose.choice((4, 9, 17, 64, 130))
        x = torch.randn(n, c, h, w, device=device).to(dtype)
        match choose.randrange(3):
            case 0:
                x = x.contiguous(memory_format=torch.channels_last)
            case 1:
                x = x.transpose(2, 3)
                h, w = w, h
        out_h = (h * up[1] + pad[2] + pad[3] - kh) // down[1] + 1
        out_w = (w * up[0] + pad[0] + pad[1] - kw) // down[0] + 1
        if out_h < 1 or out_w < 1:
            continue
        kernel = (torch.randn(kw, device=device), torch.randn(kh, device=device))
        if choose.random() < 0.4:
            kernel = (torch.outer(kernel[1], kernel[0]), None)
        epilogue = choose.choice(list(EPILOGUES.values()))
        operands = draw_operands(epilogue, n, c, out_h, out_w, device=device)
        call = (x, *kernel, *operands, up, down, pad, *epilogue[4:])
        ours, theirs = OPS._upfirdn2d_bias_act.default(*call), native.resample_bias_act(*call)
        limit = oracle.TOLERANCE[dtype]
        torch.testing.assert_close(ours, theirs, rtol=limit, atol=20 * limit)
        assert ours.stride() == theirs.stride()


def test_pieces_make_the_whole(device, monkeypatch):
    """Native computes samples, channels and rows apart, each with its share of the operands."""
    x, taps = torch.randn(3, 5, 9, 8, device=device), torch.randn(4, device=device)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=layout)
        for epilogue in EPILOGUES.values():
            operands = draw_operands(epilogue, 3, 5, 9, 8, device=device)
            call = (x, (taps, taps), operands, (1, 1), (1, 1), (2, 1, 2, 1), *epilogue[4:])
            whole = by_native(*call)
            for budget in (2000, 300):  # bytes: some planes, some rows of a plane
                monkeypatch.setattr(native, "PIECE_BYTES", {device.type: budget})
                assert len(list(native._pieces(x, whole, torch.float32))) > 5
                torch.testing.assert_close(by_native(*call), whole)
            monkeypatch.undo()


@pytest.mark.parametrize("learns", [None, 0, 1, 2, 3])
def test_native_works_in_pieces_where_nothing_learns(learns, device, monkeypatch):
    """Which of the two ways to sum is taken, of plain tensors and of those with a gradient."""
    x, taps = torch.randn(2, 3, 4, 5, device=device), torch.randn(1, device=device)
    operands = draw_operands(EPILOGUES["all"], 2, 3, 4, 5, device=device)
    calls = [operands, (None,) * 4]
    if learns is not None:
        operands[learns].requires_grad_()
        calls = [[t if i in (1, learns) else None for i, t in enumerate(operands)]]  # with noise
    monkeypatch.setattr(native, "_pass" if learns is None else "_pass_in_place", None)
    for given in calls:
        out = by_native(x, (taps, taps), given, (1, 1), (1, 1), (0,) * 4, 0.2, 1.0, None)
        assert out.requires_grad == (learns is not None)


# Gradients


def double_arguments(epilogue, device):
    kind = {"dtype": torch.float64, "device": device}
    x = torch.randn(2, 2, 4, 3, **kind, requires_grad=True)
    kernel = [torch.randn(n, **kind, requires_grad=True) for n in (3, 2)]
    operands = draw_operands(epilogue, 2, 2, 4, 6, **kind)
    operands = [t if t is None else t.requires_grad_() for t in operands]
    return (x, *kernel, *operands)


def bind(path, epilogue):
    """The op of six tensors at up 2 in x, down 1: [4, 3] -> [4, 6]."""

    def call(x, taps_x, taps_y, *operands):
        given = (taps_x, taps_y)
        return path(x, given, operands, (2, 1), (1, 1), (2, 0, 1, 0), *epilogue[4:])

    return call


@pytest.mark.parametrize("path", [by_function, by_registered], ids=lambda path: path.__name__)
@pytest.mark.parametrize("name", EPILOGUES)
def test_first_and_second_order(name, path, device):
    args = double_arguments(EPILOGUES[name], device)
    present = [t for t in args if t is not None]

    def call(*tensors):
        tensors = list(tensors)
        return bind(path, EPILOGUES[name])(*(t if t is None else tensors.pop(0) for t in args))

    assert gradcheck(call, present)
    assert gradgradcheck(call, present)


@pytest.mark.parametrize("path", [by_function, by_registered], ids=lambda path: path.__name__)
@pytest.mark.parametrize("name", EPILOGUES)
def test_third_order_equals_native(name, path, device):
    args = double_arguments(EPILOGUES[name], device)
    leaves = [t for t in args if t is not None]
    results = []
    for each in (path, by_native):
        total = bind(each, EPILOGUES[name])(*args).pow(4).sum()
        for _ in range(3):
            grads = torch.autograd.grad(total, leaves, create_graph=True)
            total = sum(g.pow(2).sum() for g in grads)
        results.append(grads)
    for ours, expected in zip(*results, strict=True):
        assert expected.detach().abs().max() > 0
        torch.testing.assert_close(
            ours, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max())
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_of_half_types(dtype, device):
    """Each of its operand's dtype, near those in float64; clamped at a value the dtype lacks.

    What would round to the limit counts as clamped, so outputs beside it are left out.
    """
    x = torch.randn(2, 3, 9, 8, device=device).to(dtype)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 8
    bias = torch.randn(3, device=device)
    noise = torch.randn(1, 1, 9, 8, device=device).to(dtype)
    strength = torch.tensor([0.3], device=device)
    tensors = [x, taps, bias, noise, strength]
    exact = upfirdn2d_bias_act(*(t.double() for t in tensors), pad=(2, 1))
    weight = torch.linspace(-1, 1, exact.numel(), device=device).reshape(exact.shape)
    weight = torch.where((exact.abs() - 0.7003).abs() < 0.01, 0.0, weight)
    results = []
    for wide in (False, True):
        leaves = [(t.double() if wide else t).detach().requires_grad_() for t in tensors]
        out = upfirdn2d_bias_act(*leaves, pad=(2, 1), clamp=0.7003)
        results.append(torch.autograd.grad((out * weight.to(out.dtype)).sum(), leaves))
        assert [g.dtype for g in results[-1]] == [t.dtype for t in leaves]
    for ours, expected in zip(*results, strict=True):
        scale = expected.abs().max()
        assert (ours.double() - expected).abs().max() <= 4 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("graph", [False, True])
def test_gradients_of_some_tensors_are_those_of_all(graph, device):
    """With and without a filter; with the graph of the gradient and without it."""
    args = double_arguments(EPILOGUES["all"], device)
    call = bind(by_function, EPILOGUES["all"])
    assert_gradients_of_some_are_those_of_all(call, args, graph)
    x, _, _, bias, _, strength, scale = args
    noise = torch.randn(2, 1, 4, 3, dtype=torch.float64, device=device)

    def alone(x, bias, noise, strength, scale):
        return bias_act(x, bias, noise, strength, scale=scale)

    assert_gradients_of_some_are_those_of_all(alone, (x, bias, noise, strength, scale), graph)

    def one_tap(x, tap_x, tap_y, bias, scale):
        return upfirdn2d_bias_act(x, (tap_x, tap_y), bias, scale=scale)

    tap_x, tap_y = (torch.tensor([tap], dtype=torch.float64, device=device) for tap in (0.5, -1.5))
    assert_gradients_of_some_are_those_of_all(one_tap, (x, tap_x, tap_y, bias, scale), graph)


def test_gradients_that_nobody_asks_for_are_not_made(device):
    x = torch.randn(1, 2, 6, 6, device=device, requires_grad=True)
    taps, bias = torch.ones(2, device=device), torch.zeros(2, device=device)
    noise = torch.randn(1, 1, 5, 5, device=device)
    out = upfirdn2d_bias_act(x, taps, bias, noise)
    saved = [t for t in out.grad_fn.saved_tensors if t is not None]
    assert [t.shape for t in saved] == [taps.shape, taps.shape, out.shape]
    out.sum().backward()
    assert bias.grad is None


@pytest.mark.parametrize("given", [False, True])
def test_sums_that_nobody_asks_for_are_not_made(given, device):
    """Where the input alone learns, whether there are operands or not."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            results = func(*args, **(kwargs or {}))
            if func in (GRAD, RAW_GRAD):
                seen.append([tuple(result.shape) for result in results])
            return results

    operands = draw_operands(EPILOGUES["all"], 2, 3, 5, 6, device=device) if given else [None] * 4
    x = torch.randn(2, 3, 5, 6, device=device, requires_grad=True)
    out = bias_act(x, *operands[:3], scale=operands[3])
    with Watch():
        torch.autograd.grad(out, x, torch.ones_like(out))
    assert seen == [[tuple(x.shape), (0,), (0,), (0,), (0,)]]


def test_only_values_that_gradients_read_are_kept(device):
    """So bias, noise and strength may be written to before the backward pass, as by F.add."""
    x = torch.randn(1, 2, 6, 6, device=device, requires_grad=True)
    bias = torch.zeros(2, device=device, requires_grad=True)
    strength = torch.ones(1, device=device, requires_grad=True)
    out = bias_act(x, bias, torch.randn(1, 1, 6, 6, device=device), strength)
    with torch.no_grad():
        bias.add_(1.0)
        strength.add_(1.0)
    out.sum().backward()
    assert bias.grad is not None
    assert strength.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_are_summed_wide(dtype, device):
    """40,000 ones: float16 ends at 65504 / 2, bfloat16 stands still at 256."""
    x = torch.ones(1, 2, 200, 200, device=device).to(dtype)
    noise = torch.ones(1, 1, 200, 200, device=device).to(dtype)
    bias = torch.zeros(2, device=device, requires_grad=True)
    strength = torch.zeros(1, device=device, requires_grad=True)
    taps = torch.full((1,), 0.3, dtype=dtype, device=device, requires_grad=True)
    out = upfirdn2d_bias_act(x, taps, bias, noise, strength, gain=2.0)
    grads = torch.autograd.grad(out, (bias, strength, taps), torch.ones_like(out))
    torch.testing.assert_close(grads[0], torch.full_like(bias, 80_000.0))
    torch.testing.assert_close(grads[1], torch.full_like(strength, 160_000.0))
    expected = 2 * taps.detach().float() * 160_000.0  # of outer(taps, taps)
    torch.testing.assert_close(grads[2].float(), expected.to(dtype).float())


def test_writing_into_the_result_before_backward_raises(device):
    x = torch.randn(1, 2, 6, 6, device=device, requires_grad=True)
    out = upfirdn2d_bias_act(x, torch.ones(2, device=device))
    out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_batched_gradients(device):
    x, taps, _, *operands = double_arguments(EPILOGUES["all"], device)
    out = bind(by_function, EPILOGUES["all"])(x, taps, _, *operands)
    vectors = torch.randn(3, *out.shape, dtype=out.dtype, device=device)
    leaves = (x, taps, *operands)
    ours = torch.autograd.grad(out, leaves, vectors, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(out, leaves, v, retain_graph=True) for v in vectors]
    for mine, each in zip(ours, zip(*singly, strict=True), strict=True):
        torch.testing.assert_close(mine, torch.stack(each))


# The first-order gradient as one operator

GRAD = OPS.upfirdn2d_bias_act_grad.default
RAW_GRAD = OPS._upfirdn2d_bias_act_grad.default
LIMITS = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def gradient_of(grad, output, scaled, taps, scale, noise, strength, samples, slope, gain, clamp):
    """The formula in NumPy float64: of the first result, and the sums for the four operands."""
    g, out = (t.double().cpu().numpy() for t in (grad, output))
    z = gain * np.where(out > 0, g, slope * g)
    if clamp is not None:
        wide = torch.float64 if output.dtype == torch.float64 else torch.float32
        z[abs(out) >= torch.tensor(clamp, dtype=wide).to(output.dtype).item()] = 0.0
    pixels = z.sum(1, keepdims=True)
    of_noise = pixels * (1.0 if strength is None else float(strength))
    if samples == 1:
        of_noise = of_noise.sum(0, keepdims=True)
    total = None if noise is None else (pixels * noise.double().cpu().numpy()).sum()
    tap = math.prod(float(tap) for tap in taps if tap is not None)
    factor = tap
    if scale is not None:
        factor = tap * scale.double().cpu().numpy()[:, :, None, None]
    elif taps == (None, None):
        factor = 1 / gain
    products = None
    if scaled is not None:
        products = tap * (z * scaled.double().cpu().numpy()).sum((2, 3))
    return z * factor, z.sum((0, 2, 3)), of_noise, total, products


def draw_gradient(choose, device):
    """Arguments of the operator: every layout, dtype and choice of sums, about vectors' edges."""
    dtype = choose.choice(DTYPES)
    n, c = choose.choice((0, 1, 2, 3)), choose.choice((1, 2, 3, 5, 16, 33, 64, 300))
    h, w = choose.choice(((1, 1), (2, 2), (4, 4), (5, 7), (16, 16), (33, 31)))
    output = torch.randn(n, c, h, w, device=device).to(dtype)
    clamp = choose.choice((None, 0.7003, 1e300))
    if clamp == 0.7003:  # as the op gives it: rounded to the limit
        output = output.double().clamp(-clamp, clamp).to(dtype)
    grad = torch.randn(n, c, h, w, device=device).to(dtype)
    layouts = [
        lambda t: t,
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: t[:, :1].expand_as(t),
    ]
    output, grad = choose.choice(layouts[:3])(output), choose.choice(layouts)(grad)
    wide = torch.float32 if dtype == torch.float16 else dtype
    kind = choose.choice((None, dtype, wide))
    scaled = kind if kind is None else torch.randn(n, c, h, w).to(kind)
    scaled = scaled if scaled is None else choose.choice(layouts)(scaled.to(device))
    scale = choose.choice((None, torch.randn(n, c), torch.randn(c, n).t().to(dtype)))
    scale = scale if scale is None else scale.to(device)
    taps = choose.choice(((None, None), (torch.tensor([[-1.5]]), None), (torch.ones(1) * 0.3,) * 2))
    taps = tuple(tap if tap is None else tap.to(device) for tap in taps)
    noise = choose.choice((None, torch.randn(n, 1, h, w), torch.randn(1, 1, h, w).to(dtype)))
    noise = noise if noise is None else noise.to(device)
    strength = choose.choice((None, torch.randn(1, device=device)))
    samples = choose.choice((0, 1, n))
    rest = (choose.choice((0.0, 0.2, 1.0)), 1.3, clamp)
    head = grad, output, scaled, *taps, scale, noise, strength
    return *head, choose.random() < 0.7, samples, *rest


@pytest.mark.parametrize(
    "path", [GRAD, RAW_GRAD, native.bias_act_grad], ids=["registered", "raw", "native"]
)
def test_the_gradient_and_its_sums(path, device):
    choose = random.Random(3)
    for _ in range(300):
        call = draw_gradient(choose, device)
        grad, output, scaled, tap_x, tap_y, scale, noise, strength, with_bias, samples, *rest = call
        results = path(*call)
        again = path(*call)
        wide = torch.float64 if output.dtype == torch.float64 else torch.float32
        taps = tap_x, tap_y
        wanted = gradient_of(grad, output, scaled, taps, scale, noise, strength, samples, *rest)
        asked = (True, with_bias, samples > 0, noise is not None, scaled is not None)
        for i, (result, expected) in enumerate(zip(results, wanted, strict=True)):
            if not asked[i]:
                assert result.shape == (0,)
                continue
            assert torch.equal(result, again[i])  # the order of the sums is fixed
            dtype = output.dtype if i == 0 else wide
            assert result.dtype == dtype
            expected = torch.as_tensor(expected).reshape(result.shape)
            # Of sums of both signs, the terms' size says how far rounding reaches
            size = 1.0 if i == 0 else 2.0 * output.numel() ** 0.5
            torch.testing.assert_close(
                result.double().cpu(), expected, rtol=LIMITS[dtype], atol=LIMITS[dtype] * size,
                msg=lambda m: f"{m}\nresult {i} of {tuple(output.shape)} {call[2:]}",  # noqa: B023
            )  # fmt: skip
        last = native.is_channels_last(output)
        layout = torch.channels_last if last else torch.contiguous_format
        assert (
            results[0].stride()
            == torch.empty(output.shape).contiguous(memory_format=layout).stride()
        )


@pytest.mark.parametrize(
    "path", [GRAD, RAW_GRAD, native.bias_act_grad], ids=["registered", "raw", "native"]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_gradient_of_scales_of_any_size(dtype, layout, path, device):
    """Planes of 1e-30 beside planes of 1e30, which a float16 does not hold."""
    shape = 2, 21, 13, 16
    grad, output = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    size = torch.tensor([1e-30, 1.0, 1e30], device=device).repeat(7)[:, None, None]
    scaled = torch.randn(shape, device=device) * size
    scaled = scaled if dtype == torch.float16 else scaled.to(dtype)
    grad, output, scaled = (t.contiguous(memory_format=layout) for t in (grad, output, scaled))
    scale, bias = torch.randn(2, 21, device=device), torch.randn(1, device=device)
    for taps, own, with_bias in (
        ((None, None), None, True),
        ((None, None), scale, False),
        ((bias, None), scale, True),
    ):
        rest = own, None, None, with_bias, 0, 0.2, 1.3
        result, of_bias, _, _, products = path(grad, output, scaled, *taps, *rest, 1.5)
        wanted = gradient_of(grad, output, scaled, taps, own, None, None, 0, 0.2, 1.3, 1.5)
        assert result.dtype == dtype
        assert products.dtype == torch.float32
        limit = LIMITS[dtype]
        torch.testing.assert_close(
            result.double().cpu(), torch.as_tensor(wanted[0]), rtol=limit, atol=limit
        )
        if with_bias:
            expected = torch.as_tensor(wanted[1])
            torch.testing.assert_close(of_bias.double().cpu(), expected, rtol=2e-6, atol=1e-4)
        expected = torch.as_tensor(wanted[4])
        limits = 1e-5 * 15 * size.cpu().double().reshape(1, 21)  # of about 15 = sqrt(13 * 16)
        assert ((products.double().cpu() - expected).abs() <= limits).all()


@pytest.mark.parametrize(
    ("dtype", "other", "sentence"),
    [
        (torch.float16, {"grad": torch.float32},
         "grad must have output's dtype, float16, got float32"),
        (torch.float16, {"scaled": torch.bfloat16},
         "scaled must have output's dtype, float16, or float32, got bfloat16"),
        (torch.bfloat16, {"scaled": torch.float32},
         "scaled must have output's dtype, bfloat16, got float32"),
    ],
)  # fmt: skip
def test_dtypes_that_the_gradient_refuses(dtype, other, sentence, device):
    kinds = {"grad": dtype, "output": dtype, "scaled": dtype, **other}
    rest = (None,) * 5 + (False, 0, 0.2, 1.0, None)
    tensors = [torch.ones(1, 2, 3, 4, device=device, dtype=kind) for kind in kinds.values()]
    if extension.choices[device.type].backend == "extension":
        with pytest.raises(RuntimeError, match=sentence):
            RAW_GRAD(*tensors, *rest)
    with pytest.raises(ValueError, match=re.sub(r"(b?float\d+)", r"torch.\1", sentence)):
        RAW_GRAD(*(t.to("meta") for t in tensors), *rest)


@pytest.mark.parametrize("last", [False, True])
def test_the_gradient_of_large_tensors(last, device):
    """Several stretches of a line, groups of lines and threads; not a number stays where it is."""
    layout = torch.channels_last if last else torch.contiguous_format
    grad = torch.randn(2, 70, 67, 75, device=device).contiguous(memory_format=layout)
    output, scaled = torch.randn_like(grad), torch.randn_like(grad)
    scale = torch.randn(2, 70, device=device)
    noise, strength = torch.randn(2, 1, 67, 75, device=device), torch.full((1,), 0.7, device=device)
    threads = torch.get_num_threads()
    for samples in (1, 2):
        rest = (noise, strength, True, samples, 0.2, 1.4, 1.0)
        call = (grad, output, scaled, None, None, scale, *rest)
        ours = RAW_GRAD(*call)
        torch.set_num_threads(1)
        try:
            alone = RAW_GRAD(*call)
        finally:
            torch.set_num_threads(threads)
        wanted = gradient_of(
            grad, output, scaled, (None, None), scale, noise, strength, samples, *call[-3:]
        )
        for mine, one, theirs in zip(ours, alone, wanted, strict=True):
            assert torch.equal(mine, one)
            theirs = torch.as_tensor(theirs).reshape(mine.shape)
            torch.testing.assert_close(mine.double().cpu(), theirs, rtol=2e-6, atol=5e-4)
    grad[0, 3, 5, 7] = math.nan
    result, bias, pixels, total, products = RAW_GRAD(*call[:-1], None)
    assert result.isnan().sum() == bias.isnan().sum() == pixels.isnan().sum() == 1
    assert products.isnan().sum() == 1
    assert products[0, 3].isnan()
    assert result[0, 3, 5, 7].isnan()
    assert bias[3].isnan()
    assert pixels[0, 0, 5, 7].isnan()
    assert total.isnan()


def test_the_gradient_of_what_was_clamped_is_zero_and_that_of_infinity_is_not(device):
    grad = torch.full((1, 1, 1, 5), math.inf, device=device)
    output = torch.tensor([-0.5, 0.5, -math.inf, math.inf, math.nan], device=device)[
        None, None, None
    ]
    rest = (None,) * 6 + (False, 0, 0.2, 2.0)
    assert RAW_GRAD(grad, output, *rest, 0.5)[0].tolist() == [[[[0.0, 0.0, 0.0, 0.0, math.inf]]]]
    grad = torch.ones_like(grad)
    wanted = torch.tensor([0.2, 1.0, 0.2, 1.0, 0.2], device=device)  # the gain is left out
    torch.testing.assert_close(RAW_GRAD(grad, output, *rest, None)[0].flatten(), wanted)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    ("dtype", "values"), [(torch.float32, [1e38, 3e38]), (torch.float64, [1e299, 1e300])], ids=str
)
def test_the_limit_of_the_gradient_is_that_of_the_result(dtype, values, graph, device):
    """A clamp beyond the dtype is the largest number of it."""
    x = torch.tensor(values, dtype=dtype, device=device)[None, None, None].requires_grad_()
    out = bias_act(x, gain=2.0, clamp=1e300)
    assert out.isfinite().all()
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=graph)
    assert grad.flatten().tolist() == [2.0, 0.0]


@pytest.mark.parametrize("samples", ["1", "N"])
def test_operand_gradients_have_the_shapes_and_dtypes_of_the_operands(samples, device):
    """Autograd would hide a gradient of too many samples: it sums them."""
    operands = draw_operands((True, samples, True, True), 2, 3, 4, 5, device=device)
    operands = [t.to(dtype) for t, dtype in zip(operands, DTYPES, strict=True)]
    grad, scaled = torch.randn(2, 3, 4, 5, device=device), torch.randn(2, 3, 4, 5, device=device)
    kept = Operands.of(operands, (True,) * 4, True)
    grads = operand_grads(grad, scaled, (), 1.5, kept, (True,) * 4)
    assert [(g.shape, g.dtype) for g in grads] == [(t.shape, t.dtype) for t in operands]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("alone", [False, True])
def test_one_pass_gives_the_gradients_of_the_composition(alone, name, layout, device):
    """Without a graph the operator, with one functions that can be differentiated again."""
    x = torch.randn(2, 3, 6, 5, device=device, dtype=torch.float64)
    x = x.contiguous(memory_format=layout)
    out_h, out_w = (6, 5) if alone else (7, 6)
    epilogue = EPILOGUES[name]
    operands = draw_operands(epilogue, 2, 3, out_h, out_w, device=device, dtype=torch.float64)
    leaves = [t if t is None else t.requires_grad_() for t in (x, *operands)]
    constants = dict(zip(("negative_slope", "gain", "clamp"), epilogue[4:], strict=True))
    constants["scale"] = leaves[-1]
    if alone:
        out = bias_act(*leaves[:-1], **constants)
    else:
        taps = torch.randn(4, device=device)
        out = upfirdn2d_bias_act(leaves[0], taps, *leaves[1:-1], pad=(2, 2), **constants)
    grad, leaves = torch.randn_like(out), [t for t in leaves if t is not None]
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, acc_events=True) as profile:
        ours = torch.autograd.grad(out, leaves, grad, retain_graph=True)
    composed = torch.autograd.grad(out, leaves, grad, create_graph=True)
    for mine, theirs in zip(ours, composed, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.dtype == theirs.dtype
        assert mine.stride() == theirs.stride()
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["resample_layers::_upfirdn2d_bias_act_grad"] == 1
    assert "aten::leaky_relu_backward" not in calls or extension.choices["cpu"].backend == "native"
    # Of one tap, the pass gives the input's gradient; else the adjoint of the op follows. With a
    # scale, what is scaled is computed anew, and the adjoint multiplies with the scale
    scaled = constants["scale"] is not None
    assert calls.get("resample_layers::_upfirdn2d", 0) == (0 if alone else 1)
    assert calls.get("resample_layers::_upfirdn2d_bias_act", 0) == (scaled and not alone)
    assert "aten::sum" not in calls or extension.choices["cpu"].backend == "native"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("gain", "size"), [(1e-4, 1e-3), (2.0, 5e4), (1e4, 1.0)])
def test_the_gain_is_not_rounded_into_the_gradient(gain, size, dtype, device):
    """A type of 16 bits would not hold the gain times the gradient, which the taps make small."""
    x = torch.randn(1, 4, 16, 16, device=device).to(dtype).requires_grad_()
    taps = torch.full((4,), 0.125, device=device, requires_grad=True)
    out = upfirdn2d_bias_act(x, taps, pad=(2, 1), gain=gain, negative_slope=0.5)
    grad = (torch.randn(out.shape, device=device) * size).clamp(-size, size).to(dtype)
    # As the output is stored, its sign tells all
    slopes = torch.where(out.detach() > 0, 1.0, 0.5).double() * grad.double() * gain
    wide, wide_taps = x.detach().double().requires_grad_(), taps.detach().double().requires_grad_()
    exact = torch.autograd.grad(upfirdn2d(wide, wide_taps, pad=(2, 1)), (wide, wide_taps), slopes)
    ours = torch.autograd.grad(out, (x, taps), grad)
    for mine, reference in zip(ours, exact, strict=True):
        limit = 4 * torch.finfo(dtype).eps * reference.abs().max().item()
        limit += 6e-8 if mine.dtype == torch.float16 else 0.0  # the least step of float16
        torch.testing.assert_close(mine.double(), reference, rtol=0.0, atol=limit)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("kind", "size", "tap", "scale", "grad_size"),
    [
        ("separable", 1.0, 1e-3, 1e5, 10.0),  # scale times gradient is more than float16 holds
        ("separable", 1e4, 9.0, 1e-5, 10.0),  # what is scaled is
        ("2-D", 1e4, 9.0, 1e-5, 10.0),
        ("separable", 1.0, 1e-2, 0.0, 1.0),  # the result does not tell it
        ("alone", 1.0, None, 300.0, 100.0),
        ("alone", 6e4, None, 0.0, 1e3),  # products are more than float16 holds
    ],
)
def test_gradients_of_any_scale(kind, size, tap, scale, grad_size, dtype, graph, device):
    """What the op sums and multiplies is wide, whatever the storage type holds of it."""
    x = (torch.rand(2, 3, 8, 9, device=device) * size).to(dtype)
    alone = kind == "alone"
    kernel = [] if alone else [torch.linspace(0.5, 1.0, 4, device=device) * tap]
    if kind == "2-D":
        kernel = [torch.outer(kernel[0], kernel[0][:3])]
    signs = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], device=device)
    tensors = [x, *kernel, torch.randn(3, device=device), signs * scale]

    def call(x, *rest):
        *kernel, bias, scale = rest
        if alone:
            return bias_act(x, bias, gain=1.5, scale=scale)
        return upfirdn2d_bias_act(x, *kernel, bias, up=2, pad=(2, 1), gain=1.5, scale=scale)

    leaves = [t.clone().requires_grad_() for t in tensors]
    out = call(*leaves)
    assert out.isfinite().all()
    grad = (torch.rand(out.shape, device=device) * grad_size).to(dtype)
    ours = torch.autograd.grad(out, leaves, grad, create_graph=graph)
    # Signs near zero are those of the result as it is stored
    slopes = torch.where(out.detach() > 0, 1.5, 0.3).double() * grad.double()
    wide = [t.double().requires_grad_() for t in tensors]
    scaled = wide[0] if alone else upfirdn2d(*wide[:2], up=2, pad=(2, 1))
    z = wide[-1][:, :, None, None] * scaled + wide[-2][:, None, None]
    exact = torch.autograd.grad(z, wide, slopes)
    for mine, reference in zip(ours, exact, strict=True):
        largest = reference.abs().max().item()
        rounding = 0.0 if mine.dtype != torch.float16 else 6e-8  # the least step of float16
        assert largest < torch.finfo(mine.dtype).max
        limit = 4 * torch.finfo(dtype).eps * largest + rounding
        torch.testing.assert_close(mine.double(), reference, rtol=0.0, atol=limit)
    assert exact[-1].abs().max() > 0


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("taps", "slope", "clamp", "expected"),
    [
        ((3e4, 1e-3), 0.2, 100.02, 64 * 1e-3),  # the outputs of the large tap are clamped
        ((3e3, 1e-2), 0.2, 100.02, 64 * 1e-2),
        ((-3e3, 0.0), 1e-9, None, 64 * -3e-6),  # float16 does not hold slope times gradient
        ((1.0, float("inf")), 0.2, None, float("inf")),
    ],
)
def test_gradient_of_a_scale_has_the_range_of_float32(
    taps, slope, clamp, expected, dtype, graph, device
):
    """Phases whose taps differ by more than a 16-bit type spans; each has 64 outputs."""
    x = torch.ones(1, 1, 1, 64, device=device, dtype=dtype)
    kernel = torch.tensor(taps, device=device), torch.ones(1, device=device)
    leaves = [x, torch.ones(1, 1, device=device)]
    for leaf in leaves:
        leaf.requires_grad_()
    call = {"negative_slope": slope, "gain": 1.0, "clamp": clamp}
    out = upfirdn2d_bias_act(x, kernel, up=(2, 1), pad=(1, 0, 0, 0), scale=leaves[1], **call)
    grad_x, grad = torch.autograd.grad(out.sum(), leaves, create_graph=graph)
    assert grad_x.dtype == dtype
    torch.testing.assert_close(grad.item(), expected, rtol=4e-3, atol=0.0)


def test_gradient_and_output_are_not_widened_for_the_gradient_of_a_scale(device):
    """One pass reads what is scaled in float32 beside gradient and output in float16."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is RAW_GRAD:
                seen.append(tuple(t.dtype for t in args[:3]))
            return func(*args, **(kwargs or {}))

    x = torch.randn(2, 3, 6, 5, device=device).half().requires_grad_()
    taps, scale = torch.ones(4, device=device), torch.ones(2, 3, device=device, requires_grad=True)
    out = upfirdn2d_bias_act(x, taps, up=2, pad=(2, 1), scale=scale)
    with Watch():
        torch.autograd.grad(out, (x, scale), torch.ones_like(out))
    assert seen == [(torch.float16, torch.float16, torch.float32)]


@pytest.mark.parametrize(
    ("taps", "call", "learned"),
    [
        ((0.5,), {}, False),
        (((0.5,),), {}, False),
        ((0.5,), {}, True),  # the taps are learned: z's gradient is needed
        ((0.5,), {"pad": (1, 0)}, False),
        ((0.5,), {"pad": (-1, 1)}, False),
        ((0.5,), {"pad": (-1, 0)}, False),
        ((0.5,), {"up": 2}, False),
        ((0.5,), {"down": 2}, False),
        ((0.5, 0.25), {}, False),
    ],
)
@pytest.mark.parametrize("tap_dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_about_one_tap(scaled, tap_dtype, taps, call, learned, device):
    x = torch.randn(2, 3, 6, 5, device=device, requires_grad=True)
    kernel = torch.tensor(taps, device=device, dtype=tap_dtype).requires_grad_(learned)
    leaves = [x, torch.randn(3, device=device, requires_grad=True), *([kernel] if learned else [])]
    scale = torch.randn(2, 3, device=device, requires_grad=True) if scaled else None
    leaves += [scale] if scaled else []
    out = upfirdn2d_bias_act(x, kernel, leaves[1], scale=scale, **call)
    grad = torch.randn_like(out)
    ours = torch.autograd.grad(out, leaves, grad, retain_graph=True)
    for mine, theirs in zip(
        ours, torch.autograd.grad(out, leaves, grad, create_graph=True), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)  # of float32 terms


def test_gradients_of_an_empty_batch(device):
    shapes = ((0, 3, 4, 5), (3,), (0, 1, 4, 5), (1,), (0, 3))
    leaves = [torch.ones(shape, device=device, requires_grad=True) for shape in shapes]
    grads = torch.autograd.grad(bias_act(*leaves[:4], scale=leaves[4]).sum(), leaves)
    assert [g.shape for g in grads] == [t.shape for t in leaves]
    assert all(not g.any() for g in grads)


def test_the_compiled_backward_has_no_sum_over_dynamic_sizes(device):
    """Inductor of torch 2.11 fails on sums over sizes such as 2 * H + 2."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    args = [t.detach().requires_grad_(t.dim() != 1 or t.numel() != 4) for t in arguments(device)]
    compiled = torch.compile(loss, backend=backend, fullgraph=True, dynamic=True)
    compiled(*args).backward()
    targets = [str(node.target) for node in graphs[-1].graph.nodes]
    # Torch 2.11 traces a backward pass as if it ran: the raw operator
    assert sum(target.endswith("upfirdn2d_bias_act_grad.default") for target in targets) == 1
    assert not [target for target in targets if target.startswith("aten.sum")]


def test_opcheck_and_vmap_of_the_gradient(device):
    choose = random.Random(5)
    calls = []
    while len(calls) < 3:
        call = draw_gradient(choose, device)
        # Torch's opcheck cannot clone an expanded tensor without elements
        if call[1].numel() > 0 and (
            len(calls) < 2 or all(t is not None for t in (call[2], call[5]))
        ):
            calls.append(call)
    for call in calls:
        torch.library.opcheck(GRAD, call)
        torch.library.opcheck(RAW_GRAD, call)
    grads, output = (
        torch.randn(3, 2, 4, 5, 6, device=device),
        torch.randn(2, 4, 5, 6, device=device),
    )
    noise = torch.randn(2, 1, 5, 6, device=device)
    scaled, scale = torch.randn_like(output), torch.randn(2, 4, device=device)
    rest = (output, scaled, None, None, scale, noise, None, True, 2, 0.2, 1.5, 1.0)
    for op in (GRAD, RAW_GRAD):
        ours = vmap(lambda grad: op(grad, *rest))(grads)  # noqa: B023
        singly = [op(grad, *rest) for grad in grads]
        for mine, each in zip(ours, zip(*singly, strict=True), strict=True):
            torch.testing.assert_close(mine, torch.stack(each))


# Doors


def arguments(device):
    kind = {"dtype": torch.float64, "device": device}
    x, taps = torch.randn(2, 3, 6, 5, **kind), torch.randn(4, **kind)
    return x, taps, *draw_operands(EPILOGUES["all"], 2, 3, 12, 10, **kind)


def loss(*args):
    *args, scale = args
    return upfirdn2d_bias_act(*args, 2, 1, (2, 1), clamp=1.0, scale=scale).pow(3).sum()


def reference(x, taps, *operands):
    call = (operands, (2, 2), (1, 1), (2, 1, 2, 1), 0.2, math.sqrt(2.0), 1.0)
    return by_native(x, (taps, taps), *call).pow(3).sum()


def test_transforms(device):
    args = arguments(device)
    every = tuple(range(6))
    for ours, theirs in zip(grad(loss, every)(*args), grad(reference, every)(*args), strict=True):
        torch.testing.assert_close(ours, theirs)
    leaves = [t.clone().requires_grad_() for t in args]
    for ours, theirs in zip(
        torch.autograd.grad(loss(*leaves), leaves), grad(reference, every)(*args), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    tangents = [torch.randn_like(t) for t in args]
    out, tangent = jvp(loss, args, tuple(tangents))
    dots = [(g * t).sum() for g, t in zip(grad(reference, every)(*args), tangents, strict=True)]
    torch.testing.assert_close(tangent, sum(dots))
    torch.testing.assert_close(out, reference(*args))
    several = [torch.stack([t, 2 * t]) for t in args]
    torch.testing.assert_close(
        vmap(loss)(*several), torch.stack([loss(*(t[i] for t in several)) for i in range(2)])
    )


def test_vmap_of_the_operators(device):
    args = arguments(device)
    several = torch.stack([args[0], -args[0]])
    rest = (args[1], *args[2:], (2, 2), (1, 1), (2, 1, 2, 1), 0.2, 1.0, None)
    for op in (OPS.upfirdn2d_bias_act.default, OPS._upfirdn2d_bias_act.default):
        ours = vmap(lambda x: op(x, args[1], *rest))(several)  # noqa: B023
        torch.testing.assert_close(ours, torch.stack([op(x, args[1], *rest) for x in several]))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_with_gradients(backend, device):
    require_compiler_of(backend)
    args = [t.detach().requires_grad_() for t in arguments(device)]
    value, grads = loss(*args), torch.autograd.grad(loss(*args), args)
    compiled = torch.compile(loss, backend=backend, fullgraph=True, dynamic=True)
    ours = compiled(*args)
    torch.testing.assert_close(ours, value)
    for mine, theirs in zip(torch.autograd.grad(ours, args), grads, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("op", "learn"),
    [
        (OPS.upfirdn2d_bias_act.default, False),
        (OPS.upfirdn2d_bias_act.default, True),
        (OPS._upfirdn2d_bias_act.default, False),
    ],
)
def test_opcheck(op, learn, device):
    x, taps, *operands = [t.float().requires_grad_(learn) for t in arguments(device)]
    rest = ((2, 2), (1, 1), (2, 1, 2, 1), 0.2, 1.5)
    torch.library.opcheck(op, (x, taps, taps, *operands, *rest, 0.8))
    torch.library.opcheck(op, (x, taps, taps, None, None, None, None, *rest, None))


def test_fake_tensors_and_tracers(device):
    x = torch.empty(2, 3, 7, 6, device="meta").contiguous(memory_format=torch.channels_last)
    out = upfirdn2d_bias_act(x, torch.empty(4, device="meta"), up=2, pad=(2, 1))
    assert out.shape == (2, 3, 14, 12)
    assert out.is_contiguous(memory_format=torch.channels_last)

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blur = UpFirDnUpsample()
            self.bias = torch.nn.Parameter(torch.randn(3))

        def forward(self, x):
            return self.blur.bias_act(x, self.bias)

    block = Block().to(device)
    traced = torch.jit.trace(block, torch.randn(1, 3, 4, 5, device=device))
    x = torch.randn(2, 3, 7, 6, device=device)
    torch.testing.assert_close(traced(x), block(x))
    torch.testing.assert_close(torch.fx.symbolic_trace(block)(x), block(x))


def test_subclasses_get_every_argument(device):
    Logged = logged_tensor()
    x, noise = torch.randn(2, 3, 6, 7, device=device), torch.randn(2, 1, 6, 7, device=device)
    bias, strength = torch.randn(3, device=device), torch.tensor([0.7], device=device)
    taps = torch.tensor([0.2, 0.5], device=device)
    rest = {"negative_slope": 0.4, "gain": 0.9, "clamp": 0.6, "scale": torch.randn(2, 3)}
    rest["scale"] = rest["scale"].to(device)
    for op, call in (
        (upfirdn2d_bias_act, lambda x: upfirdn2d_bias_act(
            x, taps, bias, noise, strength, up=2, down=2, pad=(1, 0), **rest)),
        (bias_act, lambda x: bias_act(x, bias, noise, strength, **rest)),
        (fused_leaky_relu, lambda x: fused_leaky_relu(x, bias, 0.4, -0.9)),
    ):  # fmt: skip
        out = call(x.as_subclass(Logged))
        assert op in Logged.calls
        assert isinstance(out, Logged)
        torch.testing.assert_close(out.as_subclass(torch.Tensor), call(x))
        Logged.calls.clear()
    logged = bias.as_subclass(Logged)  # an operand is asked as the input is
    for op, call in (
        (upfirdn2d_bias_act, lambda: upfirdn2d_bias_act(x, taps, logged)),
        (upfirdn2d_bias_act, lambda: upfirdn2d_bias_act(x, (taps, taps.as_subclass(Logged)))),
        (upfirdn2d_bias_act, lambda: upfirdn2d_bias_act(x, [taps, taps.as_subclass(Logged)])),
        (bias_act, lambda: bias_act(x, logged)),
        (fused_leaky_relu, lambda: fused_leaky_relu(x, logged)),
    ):
        call()
        assert Logged.calls[0] is op
        Logged.calls.clear()


@pytest.mark.parametrize("operand", [1, 3, 4, 5, 6])
def test_a_meta_operand_is_refused_by_the_operator(operand):
    x, one = torch.ones(1, 2, 4, 4), torch.ones(1)
    call = [x, one, None, torch.ones(2), torch.ones(1, 1, 4, 4), one, torch.ones(1, 2)]
    call[operand] = call[operand].to("meta")
    for op in (OPS.upfirdn2d_bias_act.default, OPS._upfirdn2d_bias_act.default):
        with pytest.raises(ValueError, match="all tensors must be on one device, got cpu and meta"):
            op(*call, (1, 1), (1, 1), (0,) * 4, 0.2, 1.0, None)


# Layers


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_a_layer_with_its_epilogue(mode, device):
    layer = UpFirDnSmooth(upsample_factor=2, kernel_size=3, padding_mode=mode).to(device)
    x = torch.randn(2, 3, 9, 11, device=device)
    bias, noise = torch.randn(3, device=device), torch.randn(2, 1, 8, 10, device=device)
    strength = torch.tensor(0.4, device=device)
    scale = torch.randn(2, 3, device=device)
    rest = {"negative_slope": 0.1, "gain": 2.0, "clamp": 1.0, "scale": scale}
    out = layer.bias_act(x, bias, noise, strength, **rest)
    z = scale[:, :, None, None] * layer(x) + 0.4 * noise + bias[:, None, None]
    wanted = (torch.nn.functional.leaky_relu(z, 0.1) * 2.0).clamp(-1.0, 1.0)
    torch.testing.assert_close(out, wanted)


# The epilogue alone


@pytest.mark.parametrize("size", [(5, 7), (40, 33)], ids=["small", "large"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bias_act_alone(dtype, size, device):
    x = torch.randn(2, 3, *size, device=device).to(dtype)
    for epilogue in EPILOGUES.values():
        operands = draw_operands(epilogue, 2, 3, *size, device=device)
        out = bias_act(x, *operands[:3], *epilogue[4:], scale=operands[3])
        assert out.dtype == dtype
        sums = x.double().cpu().numpy()
        expected = expected_of(sums, *operands, *epilogue[4:])
        limit = 10 * oracle.TOLERANCE[dtype]
        assert abs(out.double().cpu().numpy() - expected).max() <= limit


@pytest.mark.parametrize("shape", [(1, 3, 0, 4), (2, 3, 4, 0), (0, 3, 2, 2), (2, 0, 2, 2)])
def test_bias_act_of_nothing(shape, device):
    """As every function of torch that works element by element, on every door."""
    n, c, *size = shape
    leaves = [torch.empty(shape, device=device), torch.ones(c, device=device)]
    leaves += [torch.ones(1, 1, *size, device=device), torch.ones(n, c, device=device)]
    leaves = [t.requires_grad_() for t in leaves]

    def call(x, bias, noise, scale):
        return bias_act(x, bias, noise, clamp=1.0, scale=scale)

    for each in (call, torch.compile(call, backend="eager")):
        out = each(*leaves)
        assert out.shape == shape
        for leaf, slope in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
            assert torch.equal(slope, torch.zeros_like(leaf))
    assert bias_act(leaves[0].detach().half()).dtype == torch.float16
    assert nvidia.bias_act(leaves[0], act="lrelu").shape == shape
    with pytest.raises(ValueError, match="bias must be "):
        bias_act(leaves[0], torch.ones(c + 1, device=device))


@pytest.mark.parametrize("size", [(2, 3), (32, 33)], ids=["small", "large"])
def test_gradients_of_bias_act(size, device):
    """Both ways to compute it, to the second order, against plain torch."""
    kind = {"dtype": torch.float64, "device": device}
    leaves = [torch.randn(2, 3, *size, **kind), torch.randn(3, **kind)]
    leaves += [torch.randn(1, 1, *size, **kind), torch.randn(1, **kind), torch.randn(2, 3, **kind)]
    leaves = [t.requires_grad_() for t in leaves]

    def ours_of(*args):
        return bias_act(*args[:4], scale=args[4])

    def plain(x, bias, noise, strength, scale):
        z = scale[:, :, None, None] * x + strength * noise + bias[:, None, None]
        return torch.nn.functional.leaky_relu(z, 0.2) * math.sqrt(2.0)

    results = []
    for call in (ours_of, plain):
        first = torch.autograd.grad(call(*leaves).pow(3).sum(), leaves, create_graph=True)
        total = sum(g.pow(2).sum() for g in first)
        results.append([*first, *torch.autograd.grad(total, leaves)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_transforms_of_bias_act(device):
    """torch.func gets the formula in torch's own functions, and the checks of the call."""
    x, noise = torch.randn(2, 3, 4, 5, device=device), torch.randn(2, 1, 4, 5, device=device)

    def loss(x):
        return bias_act(x, noise=noise, clamp=1.0).pow(2).sum()

    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(grad(loss)(x), torch.autograd.grad(loss(leaf), leaf)[0])
    with pytest.raises(ValueError, match="noise must be "):
        grad(lambda x: bias_act(x, noise=noise[..., :4]).sum())(x)


def test_symbolic_trace_of_activations(device):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.randn(3))

        def forward(self, x):
            return fused_leaky_relu(bias_act(x, self.bias, gain=2.0), self.bias)

    block = Block().to(device)
    x = torch.randn(2, 3, 34, 35, device=device)
    traced = torch.fx.symbolic_trace(block)
    assert [node.target for node in traced.graph.nodes][2:4] == [bias_act, fused_leaky_relu]
    torch.testing.assert_close(traced(x), block(x))
    torch.testing.assert_close(torch.jit.trace(block, x[:, :, :4])(x), block(x))
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x), block(x))


# Errors

X, K = torch.ones(2, 3, 4, 5), torch.ones(2, 2)
NOISE = torch.ones(1, 1, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({"bias": [1.0]}, TypeError, "bias must be a tensor or None, got [1.0] (list)"),
        ({"bias": torch.ones(3).int()}, TypeError,
         "bias must be float16, bfloat16, float32 or float64, got torch.int32"),
        ({"bias": torch.ones(2)}, ValueError,
         "bias must be [C] with the C of input, 3, got shape (2,)"),
        ({"bias": torch.ones(3, device="meta")}, ValueError,
         "bias must be on the device of input, got bias on meta and input on cpu"),
        ({"noise": torch.ones(3, 1, 3, 4)}, ValueError,
         "noise must be [N or 1, 1, out_h, out_w], here [2 or 1, 1, 3, 4], got shape "
         "(3, 1, 3, 4)"),
        ({"noise": torch.ones(3, 4)}, ValueError,
         "noise must be [N or 1, 1, out_h, out_w], here [2 or 1, 1, 3, 4], got shape (3, 4)"),
        ({"noise_strength": torch.ones(1)}, ValueError,
         "noise_strength must come with noise, got noise=None"),
        ({"noise": NOISE, "noise_strength": 0.5}, TypeError,
         "noise_strength must be a tensor or None, got 0.5 (float)"),
        ({"noise": NOISE, "noise_strength": torch.ones(2)}, ValueError,
         "noise_strength must be a tensor of one element, got shape (2,)"),
        ({"noise": NOISE, "noise_strength": torch.ones(0)}, ValueError,
         "noise_strength must be a tensor of one element, got shape (0,)"),
        ({"scale": 2.0}, TypeError, "scale must be a tensor or None, got 2.0 (float)"),
        ({"scale": torch.ones(3)}, ValueError,
         "scale must be [N, C] with the N and C of input, [2, 3], got shape (3,)"),
        ({"scale": torch.ones(1, 3)}, ValueError,
         "scale must be [N, C] with the N and C of input, [2, 3], got shape (1, 3)"),
        ({"scale": torch.ones(2, 3, device="meta")}, ValueError,
         "scale must be on the device of input, got scale on meta and input on cpu"),
        ({"negative_slope": -0.1}, ValueError,
         "negative_slope must be finite and >= 0, got negative_slope=-0.1"),
        ({"gain": 0}, ValueError, "gain must be finite and > 0, got gain=0"),
        ({"gain": math.nan}, ValueError, "gain must be finite and > 0, got gain=nan"),
        ({"gain": "2"}, TypeError, "gain must be a number, got gain='2' (str)"),
        ({"clamp": 0.0}, ValueError, "clamp must be finite and > 0, got clamp=0.0"),
        ({"clamp": True}, TypeError, "clamp must be a number, got clamp=True (bool)"),
        ({"up": 0}, ValueError, "up must be >= 1 in both axes, got up=0"),
    ],
)  # fmt: skip
def test_errors(arguments, kind, sentence):
    with pytest.raises(kind) as caught:
        upfirdn2d_bias_act(X, K, **arguments)
    assert str(caught.value) == sentence
