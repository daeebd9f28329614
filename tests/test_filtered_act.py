# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: E501
"""Filtered activations: values on every path, gradients of every order, doors, errors."""

import itertools
import math
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

from resample_layers import FilteredLeakyReLU, FilteredSnakeBeta
from resample_layers.ops import extension, filtered_lrelu, filtered_snake, native
from resample_layers.ops.filtered_act import FILTERED_ACT, FILTERED_ACT_GRAD, Formula
from resample_layers.ops.nonlinearity import GELU, LEAKY_RELU, NONLINEARITIES, SILU, SNAKE
from resample_layers.ops.upfirdn2d import UPFIRDN2D

from . import oracle
from .calls import assert_gradients_of_some_are_those_of_all, logged_tensor
from .tools import require

OPS = torch.ops.resample_layers
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Case(NamedTuple):
    name: str
    reason: str
    shape: tuple[int, int, int, int]  # [N, C, H, W]
    up_kernel: tuple[int, int] = (1, 1)  # (kh, kw)
    down_kernel: tuple[int, int] = (1, 1)
    up: tuple[int, int] = (1, 1)  # (x, y)
    down: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # (x0, x1, y0, y1)
    down_pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    replicate: bool = False


CASES = (
    Case("bare", "no filter at all", (2, 3, 4, 5)),
    Case("stylegan3", "12 taps, up 2, down 2", (1, 3, 9, 7), (12, 12), (12, 12), (2, 2), (2, 2), (9, 8, 9, 8)),
    Case("stylegan3 4x", "24 taps, up 4, down 2", (1, 2, 5, 6), (24, 24), (12, 12), (4, 4), (2, 2), (17, 16, 15, 18)),
    Case("bigvgan", "a signal, both borders continued", (2, 3, 1, 11), (1, 12), (1, 12), (2, 1), (2, 1), (6, 5, 0, 0), (5, 6, 0, 0), True),
    Case("signal", "the same with zeros", (2, 3, 1, 11), (1, 12), (1, 12), (2, 1), (2, 1), (6, 5, 0, 0), (5, 6, 0, 0)),
    Case("axes", "all differ by axis", (2, 3, 6, 5), (3, 5), (2, 4), (3, 2), (2, 3), (4, 3, 2, 5), (1, 2, 0, 3)),
    Case("axes, continued", "all differ by axis", (2, 3, 6, 5), (3, 5), (2, 4), (3, 2), (2, 3), (4, 3, 2, 5), (1, 2, 0, 3), True),
    Case("crop", "negative pads", (1, 2, 8, 9), (3, 2), (2, 2), (2, 2), (1, 1), (-3, -2, -1, -4), (-1, -2, 0, -1)),
    Case("crop, continued", "negative pads", (1, 2, 8, 9), (3, 2), (2, 2), (2, 2), (1, 1), (-3, 4, 5, -4), (-1, 2, 3, -1), True),
    Case("far padding", "outputs that see no sample: zeros, and not f(0)", (1, 2, 3, 2), (2, 2), (2, 2), pad=(5, 4, 3, 6), down_pad=(4, 3, 5, 2)),
    Case("one sample", "it is both ends", (2, 2, 1, 1), (3, 3), (4, 4), (2, 2), (2, 2), (4, 4, 4, 4), (3, 3, 3, 3), True),
    Case("one in the middle", "an upsampled signal of one sample", (1, 2, 2, 2), (3, 3), (2, 2), (2, 2), pad=(0, -1, 0, -1), down_pad=(2, 1, 1, 2), replicate=True),
    Case("no up", "a filter before the activation alone", (1, 3, 7, 8), (5, 5), (1, 1), pad=(2, 2, 2, 2)),
    Case("no taps up", "zeros inserted and not filtered", (1, 3, 5, 4), (1, 1), (6, 6), (3, 3), (2, 2), down_pad=(2, 2, 2, 2)),
    Case("channels", "more channels than a vector holds", (1, 37, 4, 5), (4, 4), (4, 4), (2, 2), (2, 2), (3, 2, 3, 2)),
    Case("long signal", "more than one block of a signal", (1, 2, 1, 5000), (1, 12), (1, 12), (2, 1), (2, 1), (6, 5, 0, 0), (5, 6, 0, 0), True),
    Case("empty batch", "N = 0", (0, 3, 5, 4), (4, 4), (4, 4), (2, 2), (2, 2), (2, 1, 2, 1)),
    Case("no channels", "C = 0", (2, 0, 5, 4), (4, 4), (4, 4), (2, 2), (2, 2), (2, 1, 2, 1)),
    Case("wider border in x", "the smaller factor has the wider pad", (1, 2, 5, 6), (5, 3), (4, 2), (2, 4), (3, 2), (8, 7, 2, 3), (2, 1, 3, 0), True),
)  # fmt: skip
SMALL = [c for c in CASES if 0 < c.shape[0] * c.shape[1] < 37 and c.shape[3] < 5000]
EMPTY_INPUT = Case("nothing but padding", "H = 0", (1, 2, 0, 4), (2, 2), (2, 2), pad=(1, 1, 3, 2))
CONSTANTS = {LEAKY_RELU: (0.2, math.sqrt(2.0), 0.7), SNAKE: (1.0, 1.0, None), SILU: (1.0, 1.5, 0.9),
             GELU: (1.0, 0.5, None)}  # fmt: skip
ACTIVATIONS = pytest.mark.parametrize("activation", list(NONLINEARITIES))
BY_NAME = {"ids": lambda case: case.name}


def function_of(activation, alpha, beta, slope, gain, clamp):
    """The nonlinearity in NumPy float64."""

    def apply(m):
        if activation == LEAKY_RELU:
            value = np.where(m > 0, m, slope * m)
        elif activation == SNAKE:
            value = m + np.sin(alpha * m) ** 2 / (beta + 1e-9)
        elif activation == SILU:
            value = m / (1 + np.exp(-m))
        else:
            value = 0.5 * m * (1 + np.vectorize(math.erf, otypes=[float])(m / math.sqrt(2.0)))
        value = gain * value
        return value if clamp is None else np.clip(value, -clamp, clamp)

    return apply


def draw(case, activation, dtype, device, separable=True, with_bias=True, seed=0):
    """The operator's arguments; kernels of the accumulate dtype, with sums that keep the scale."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    c = case.shape[1]

    def values(*size, kind=wide):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device, kind)

    kernels = []
    for (kh, kw), factors in ((case.up_kernel, case.up), (case.down_kernel, (1, 1))):
        scale = (factors[0] * factors[1] / (kh * kw)) ** 0.5
        if separable or kh == 24:
            kernels += [values(kw) * scale, values(kh)]
        else:
            kernels += [values(kh, kw) * scale, None]
    alpha = beta = None
    if activation == SNAKE:
        alpha, beta = values(c).abs() + 0.3, values(c).abs() + 0.5
    bias = values(c) if with_bias else None
    call = case.up, case.down, case.pad, case.down_pad, case.replicate, activation
    return (
        values(*case.shape, kind=dtype),
        bias,
        alpha,
        beta,
        *kernels,
        *call,
        *CONSTANTS[activation],
    )


def expected_of(args):
    """(the result, the scale of its rounding) by the oracle."""
    input, bias, alpha, beta, *taps = (
        None if t is None else t.detach().double().cpu().numpy() for t in args[:8]
    )
    up, down, pad, down_pad, replicate, activation, *constants = args[8:]
    kernels = [a if b is None else (a, b) for a, b in (taps[:2], taps[2:])]
    if bias is not None:
        input = input + bias[:, None, None]
    operands = [None if t is None else t[:, None, None] for t in (alpha, beta)]
    function = function_of(activation, *operands, *constants)
    geometry = up, down, (pad, down_pad), replicate
    out = oracle.filtered(input, kernels, function, *geometry)
    steep = 1.0  # the largest derivative
    if activation == SNAKE:
        steep = 1 + (operands[0] / operands[1]).max(initial=0.0)
    sizes = [tuple(map(abs, k)) if isinstance(k, tuple) else abs(k) for k in kernels]
    scale = oracle.filtered(abs(input), sizes, lambda m: constants[1] * (steep * m), *geometry)
    return out, scale.max(initial=0.0) or 1.0


def is_enough(case, dtype, activation):
    """Whether other cases have shown already what this one would: it takes long."""
    if case.name == "long signal":
        return activation != SNAKE
    return dtype != torch.float32 and activation in (SILU, GELU) and case not in CASES[:4]


def by_public_function(*args):
    """The public function of images or signals; None for what is not public."""
    input, bias, alpha, beta, *taps = args[:8]
    up, down, pad, down_pad, replicate, activation, slope, gain, clamp = args[8:]
    mode = "replicate" if replicate else "zeros"
    if activation == LEAKY_RELU:
        kernels = [a if b is None else (a, b) for a, b in (taps[:2], taps[2:])]
        return filtered_lrelu(
            input, *kernels, bias, up, down, pad, slope, gain, clamp, down_pad, mode
        )
    if activation == SNAKE and taps[1] is None and taps[0].shape[0] == 1 and input.shape[2] == 1:
        kernels = taps[0][0], taps[2][0]
        call = up[:1], down[:1], pad[:2], down_pad[:2], mode
        return filtered_snake(input.squeeze(2), alpha, beta, *kernels, bias, *call).unsqueeze(2)
    return None


def by_autograd(input, *rest):
    return FILTERED_ACT(input.detach().requires_grad_(), *rest).detach()


def by_formula(*args):
    return Formula.of(UPFIRDN2D, args).output().to(args[0].dtype)


PATHS = (
    by_public_function,
    OPS.filtered_act.default,
    OPS._filtered_act.default,
    FILTERED_ACT.native,
    by_autograd,
    by_formula,
)


@ACTIVATIONS
@pytest.mark.parametrize("case", CASES, **BY_NAME)
def test_values(case, activation, device):
    for separable in (True, False):
        drawn = draw(case, activation, torch.bfloat16, device, separable, with_bias=separable)
        expected, scale = expected_of(drawn)  # every dtype holds what is drawn
        for dtype in DTYPES:
            if is_enough(case, dtype, activation):
                continue
            for layout in (torch.contiguous_format, torch.channels_last):
                x = drawn[0].to(dtype).contiguous(memory_format=layout)
                taps = [t if t is None else t.to(torch.float64) for t in drawn[4:8]]
                taps = taps if dtype == torch.float64 else drawn[4:8]
                for path in PATHS:
                    out = path(x, *drawn[1:4], *taps, *drawn[8:])
                    if out is None:
                        continue
                    assert out.dtype == dtype
                    assert out.shape == expected.shape
                    if path is not by_formula:
                        like = torch.empty(out.shape, memory_format=native.memory_format(x))
                        assert out.stride() == like.stride()
                    error = abs(out.double().cpu().numpy() - expected).max(initial=0.0) / scale
                    assert error <= 4 * oracle.TOLERANCE[dtype], f"{path}, {dtype}, {error:.2e}"


def test_bigvgan_as_its_code_has_it(device):
    """Against another form of the formula: continue, convolve wholly, crop."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 17, generator=generator, dtype=torch.float64).to(device)
    alpha, beta = (torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.5).to(device)
    taps = torch.rand(12, generator=generator, dtype=torch.float64).to(device)
    taps = (taps + taps.flip(0)) / 12
    out = filtered_snake(
        x, alpha, beta, 2 * taps, taps, up=2, down=2, pad=(6, 5), down_pad=(5, 6),
        padding_mode="replicate",
    )  # fmt: skip
    expected = oracle.activation1d(*(t.cpu().numpy() for t in (x, taps)), 2, *(
        t.cpu().numpy() for t in (alpha, beta)))  # fmt: skip
    np.testing.assert_allclose(out.cpu().numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_rounded_once(dtype, device):
    """What is stored differs from the float64 result by one rounding, however large the middle."""
    args = draw(CASES[1], LEAKY_RELU, dtype, device)
    args = (args[0] * 100, *args[1:-1], None)
    out = FILTERED_ACT(*args).double()
    exact = FILTERED_ACT(args[0].double(), *args[1:])
    limit = torch.finfo(dtype).eps / 2 * exact.abs() + 2e-6 * exact.abs().max()
    assert bool(((out - exact).abs() <= limit).all())


def test_padding_is_zero_and_not_activated(device):
    """Where no sample is seen, Snake, GELU and the bias give nothing."""
    x = torch.zeros(1, 1, 3, device=device)
    one = torch.ones(1, device=device)
    out = filtered_snake(x, one, bias=one, pad=2, down_pad=2)
    m = math.sin(1.0) ** 2 + 1.0
    expected = torch.tensor([0, 0, 0, 0, m, m, m, 0, 0, 0, 0], device=device, dtype=torch.float32)
    torch.testing.assert_close(out[0, 0], expected, rtol=1e-6, atol=0.0)


def test_nan_and_infinity_touch_their_windows_only(device):
    for value, clamp in ((math.nan, None), (math.nan, 0.5), (math.inf, None)):
        for activation in NONLINEARITIES:
            args = (*draw(CASES[1], activation, torch.float32, device)[:-1], clamp)
            clean = FILTERED_ACT(*args)
            marked = args[0].clone()
            marked[0, 1, 4, 3] = 1e3
            touched = FILTERED_ACT(marked, *args[1:]) != clean
            marked[0, 1, 4, 3] = value
            out = FILTERED_ACT(marked, *args[1:])
            assert not out.isfinite()[0, 1].all()
            assert out[0, 0].isfinite().all()
            assert torch.equal(out[~touched], clean[~touched])


# Gradients


def fused_and_composed(args, seed=3):
    """Gradients of (input, bias, alpha, beta) by the operator and by the lines of the formula."""
    out = FILTERED_ACT(*args)
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(out.shape, generator=generator).to(out.device, out.dtype)
    needs = [t is not None for t in args[1:4]]
    fused = FILTERED_ACT_GRAD(g, *args, needs)
    composed = Formula.of(UPFIRDN2D, args).grads(g, (True, *needs, *(False,) * 4))
    return g, needs, fused, composed


@ACTIVATIONS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, EMPTY_INPUT], **BY_NAME)
def test_the_fused_gradient(case, dtype, activation, device):
    if is_enough(case, dtype, activation):
        return
    for separable in (True, False):
        for layout in (torch.contiguous_format, torch.channels_last):
            args = draw(case, activation, dtype, device, separable)
            args = (args[0].contiguous(memory_format=layout), *args[1:])
            g, needs, fused, composed = fused_and_composed(args)
            assert fused[0].dtype == dtype
            assert fused[0].shape == args[0].shape
            if args[0].numel():
                assert fused[0].stride() == args[0].stride()
            # The same in float64, where nothing is rounded
            wide = tuple(t.double() if isinstance(t, torch.Tensor) else t for t in args)
            exact = Formula.of(UPFIRDN2D, wide).grads(g.double(), (True, *needs, *(False,) * 4))
            for ours, lines, reference in zip(fused, composed, exact, strict=False):
                if reference is None:
                    assert ours.numel() == 0
                    continue
                size = reference.abs().max().item() if reference.numel() else 1.0
                tolerance = 40 * oracle.TOLERANCE[dtype] if ours is fused[0] else 1e-4
                assert ours.shape == reference.shape
                assert lines.shape == reference.shape
                for result in (ours, lines):
                    torch.testing.assert_close(
                        result.double(), reference, rtol=0, atol=tolerance * (size or 1.0)
                    )


@ACTIVATIONS
def test_the_derivatives_of_the_nonlinearities(activation, device):
    """The rules in plain torch, which the composed and the native gradient share, by autograd."""
    row, double = NONLINEARITIES[activation], {"dtype": torch.float64, "device": device}
    m = torch.linspace(-3.0, 3.0, 31, **double).requires_grad_()
    alpha, beta = torch.tensor([[[0.7], [1.9]], [[0.0], [1.3]]], **double)  # 0: see SNAKE_EPSILON
    operands = [t.requires_grad_() for t in (alpha, beta)] if row.operand_grads else [None, None]
    value = row.value(m.expand(2, 31), *operands, 0.2)
    g = torch.randn_like(value)
    wanted = torch.autograd.grad(value, [t for t in (m, *operands) if t is not None], g)
    ours = [row.grad(g, m, *operands, 0.2).sum(0)]
    if row.operand_grads is not None:
        ours += [t.sum(1, keepdim=True) for t in row.operand_grads(g, m, *operands, 0.2)]
    torch.testing.assert_close(ours, list(wanted))


@pytest.mark.parametrize("activation", [LEAKY_RELU, SNAKE])
@pytest.mark.parametrize("case", SMALL, **BY_NAME)
def test_gradients_of_both_orders(case, activation, device):
    """The operator's gradient and that of its gradient, in every tensor."""
    small = case._replace(shape=(1, min(case.shape[1], 2), *case.shape[2:]))
    # With this seed no value lies so near to a kink that a difference would step over it
    args = draw(small, activation, torch.float64, device, case.up_kernel[0] > 1, seed=1)
    tensors = [t.requires_grad_() for t in args[:8] if t is not None]
    places = [i for i, t in enumerate(args[:8]) if t is not None]

    def call(*values):
        filled = list(args)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        return FILTERED_ACT(*filled)

    assert gradcheck(call, tensors, fast_mode=True)
    assert gradgradcheck(call, tensors, fast_mode=True)
    # Without the kernels, the first order is the fused operator's
    fixed = [t.detach() if i >= 4 else t for i, t in zip(places, tensors, strict=True)]
    assert gradcheck(call, fixed, fast_mode=True)
    assert gradgradcheck(call, fixed, fast_mode=True)


@pytest.mark.parametrize("graph", [False, True])
def test_gradients_of_some_tensors_are_those_of_all(graph, device):
    args = draw(CASES[6], SNAKE, torch.float64, device)

    def call(*tensors):
        return FILTERED_ACT(*tensors, *args[8:])

    assert_gradients_of_some_are_those_of_all(call, args[:8], graph)


def test_snake_alone_has_one_number_per_channel(device):
    """Without beta, alpha gets the gradient of both."""
    args = draw(CASES[3], SNAKE, torch.float64, device, separable=False)
    x, alpha = args[0].squeeze(2).requires_grad_(), args[2].requires_grad_()
    assert gradcheck(lambda x, a: filtered_snake(x, a, up=2, pad=1), (x, alpha))


def test_a_snake_of_zero_beta_is_finite_where_it_can_be(device):
    x, zero = torch.zeros(1, 1, 4, device=device), torch.zeros(1, device=device)
    assert not filtered_snake(x, zero).any()


def test_the_sums_of_half_types_are_not_rounded(device):
    """A bias in float32 keeps the gradient that a half type would lose."""
    x = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16, device=device)
    bias = torch.zeros(1, device=device, requires_grad=True)
    filtered_lrelu(x, bias=bias, gain=1.0).sum().backward()
    assert bias.grad.item() == 4096


def test_gradient_where_clamped_and_at_zero(device):
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0], device=device).view(1, 1, 1, 5).requires_grad_()
    filtered_lrelu(x, negative_slope=0.5, gain=1.0, clamp=1.0).sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 0.5, 0.5, 1.0, 0.0]


MEMORY = """
import os
# Linux counts the pages of each processor apart, and reads their sum without the last few of each
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from pathlib import Path
import torch
from resample_layers.ops import filtered_lrelu, filtered_snake

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def beside(call):  # bytes at the peak of a call that are not its results'
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    results = call()
    peak = memory("VmHWM") - before
    return peak - sum(t.nbytes for t in results), results

torch.set_num_threads(2)
taps, bias = torch.rand(12), torch.rand(16, requires_grad=True)
calls = {  # of 10 MB; upsampled 20 to 40 MB
    (1, 16, 400, 400): lambda x: filtered_lrelu(x, taps, taps, bias, up=2, down=2, pad=(9, 8)),
    (2, 16, 80000): lambda x: filtered_snake(
        x, bias, None, taps, taps, up=2, down=2, pad=(6, 5), down_pad=(5, 6),
        padding_mode="replicate",
    ),
}
for shape, call in calls.items():
    x = torch.randn(shape, requires_grad=True)
    peaks = []
    for _ in range(3):  # the first call also pays for what torch sets up once
        first, (out,) = beside(lambda: (call(x),))
        g = torch.ones_like(out)
        second, grads = beside(lambda: torch.autograd.grad(out, (x, bias), g))
        peaks.append(max(first, second))
        del out, g, grads
    print(min(peaks))
"""


def test_the_upsampled_signal_is_never_stored():
    """Forward and first-order backward take what they return and less than 1 MB beside it."""
    require("compiled kernels", found=extension.choices["cpu"].backend == "extension")
    require("/proc/self/clear_refs", found=os.access("/proc/self/clear_refs", os.W_OK))
    # Memory that is freed goes back to the system at once, or it would hide what is taken next
    quick = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    quick["MIMALLOC_PURGE_DELAY"] = "0"  # torch's allocator on arm64
    child = subprocess.run(
        [sys.executable, "-c", MEMORY], env=os.environ | quick, text=True, capture_output=True
    )
    assert child.returncode == 0, child.stderr
    peaks = [int(line) for line in child.stdout.split()]
    assert len(peaks) == 2
    assert all(-(1 << 20) < peak < 1 << 20 for peak in peaks), peaks


def test_taps_may_be_written_between_forward_and_backward(device):
    """DDP broadcasts the buffers of a layer before each forward pass."""
    x = torch.randn(1, 2, 6, 7, device=device, requires_grad=True)
    one, pair = torch.rand(4, device=device), (torch.rand(3, device=device),) * 2
    for kernels, buffers in (((one, one), [one]), ((pair, one), [*pair, one])):
        out = filtered_lrelu(x, *kernels, up=2, down=2, pad=(2, 2))
        (expected,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
        for buffer in buffers:
            buffer.add_(1.0)
        (again,) = torch.autograd.grad(out.sum(), x)
        assert torch.equal(again, expected)


def test_every_choice_of_sums(device):
    args = draw(CASES[3], SNAKE, torch.float64, device, separable=False)
    g = torch.ones_like(FILTERED_ACT(*args))
    everything = FILTERED_ACT_GRAD(g, *args, [True, True, True])
    for needs in itertools.product((False, True), repeat=3):
        results = FILTERED_ACT_GRAD(g, *args, list(needs))
        assert torch.equal(results[0], everything[0])
        for result, whole, asked in zip(results[1:], everything[1:], needs, strict=True):
            assert torch.equal(result, whole) if asked else result.shape == (0,)


def test_one_number_for_alpha_and_beta_is_rounded_once(device):
    generator = torch.Generator().manual_seed(
        3
    )  # two gradients rounded apart would be 39 steps off
    x = torch.randn(4, 8, 500, generator=generator).to(device)
    alpha = (torch.rand(8, generator=generator) + 0.5).to(device, torch.bfloat16).requires_grad_()
    wide = alpha.detach().double().requires_grad_()
    filtered_snake(x, alpha).sum().backward()
    filtered_snake(x.double(), wide).sum().backward()
    step = torch.finfo(torch.bfloat16).eps / 2 * wide.grad.abs() + 1e-3
    assert bool(((alpha.grad.double() - wide.grad).abs() <= step).all())


def test_results_do_not_change_from_run_to_run(device):
    args = draw(CASES[1]._replace(shape=(3, 19, 40, 41)), LEAKY_RELU, torch.float32, device)
    g, needs, first, _ = fused_and_composed(args)
    for _ in range(5):
        for a, b in zip(first, FILTERED_ACT_GRAD(g, *args, needs), strict=True):
            assert torch.equal(a, b)


def test_strides_of_any_kind(device):
    """Slices and expanded tensors, as input and as gradient."""
    args = draw(CASES[1], LEAKY_RELU, torch.float32, device)
    wide = torch.randn(1, 6, 20, 9, device=device)[:, ::2, 2::2, 1:8]
    expected = FILTERED_ACT(wide.contiguous(), *args[1:])
    torch.testing.assert_close(FILTERED_ACT(wide, *args[1:]), expected, rtol=1e-6, atol=1e-6)
    g = torch.ones(1, 1, 1, 1, device=device).expand_as(expected)
    needs = [True, False, False]
    ours = FILTERED_ACT_GRAD(g, wide, *args[1:], needs)
    reference = FILTERED_ACT_GRAD(g.contiguous(), wide.contiguous(), *args[1:], needs)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)


# Compilers, exporters, transforms


class Net(torch.nn.Module):
    """Both functions as a user calls them, and the layers made of them."""

    def __init__(self):
        super().__init__()
        self.image_layer = FilteredLeakyReLU(3, up=4, radial=True, filter_size=2)
        self.signal_layer = FilteredSnakeBeta(3, log_scale=True)
        self.taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.bias = torch.nn.Parameter(torch.randn(3))
        self.alpha = torch.nn.Parameter(torch.rand(3) + 0.5)

    def forward(self, x):
        x = filtered_lrelu(x, 2 * self.taps, self.taps, self.bias, up=2, down=2, pad=(3, 3))
        x = self.signal_layer(self.image_layer(x).flatten(2))
        return filtered_snake(
            x, self.alpha, None, 2 * self.taps, self.taps, up=2, down=2, pad=(2, 1),
            down_pad=(1, 2), padding_mode="replicate",
        )  # fmt: skip


def test_opcheck(device):
    for case, activation in ((CASES[1], LEAKY_RELU), (CASES[3], SNAKE)):
        args = draw(case, activation, torch.float32, device, separable=case.up_kernel[0] > 1)
        args[0].requires_grad_()
        torch.library.opcheck(OPS.filtered_act.default, args)
        plain = (args[0].detach(), *args[1:])
        g = torch.randn_like(FILTERED_ACT(*plain))
        needs = [True, activation == SNAKE, activation == SNAKE]
        torch.library.opcheck(OPS.filtered_act_grad.default, (g, *plain, needs))


def test_compiled_with_one_graph_and_the_fused_gradient(device):
    torch.manual_seed(0)
    net, seen = Net().to(device), []
    net.taps = net.taps.to(device)

    def backend(graph, inputs):
        # Torch 2.11 sees the raw operator in a backward pass, whose name begins with _
        seen.extend(str(node.target).replace("._", ".") for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    compiled = torch.compile(
        net, backend=aot_autograd(fw_compiler=backend), fullgraph=True, dynamic=True
    )
    for size in ((2, 3, 6, 5), (3, 3, 7, 9), (2, 3, 8, 4)):
        x = torch.randn(size, device=device, requires_grad=True)
        leaves = (x, *net.parameters())
        out, expected = compiled(x), net(x)
        torch.testing.assert_close(out, expected)
        ours = torch.autograd.grad(out.square().sum(), leaves)
        theirs = torch.autograd.grad(expected.square().sum(), leaves)
        torch.testing.assert_close(ours, theirs)
    assert seen.count("resample_layers.filtered_act.default") == 4
    assert seen.count("resample_layers.filtered_act_grad.default") == 4
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the tracer's own
def test_export_and_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net, x = Net().eval(), torch.randn(2, 3, 6, 5)
    sizes = {"x": {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}}
    program = torch.export.export(net, (x,), dynamic_shapes=sizes, strict=False)
    names = [str(node.target) for node in program.graph.nodes]
    assert names.count("resample_layers.filtered_act.default") == 4
    other = torch.randn(3, 3, 9, 7)
    torch.testing.assert_close(program.module()(other), net(other))
    for kind in ("program", "tracer"):
        path = str(tmp_path / f"{kind}.onnx")
        if kind == "program":
            torch.onnx.export(program, (), path, dynamo=True, verbose=False)
        else:
            axes = {"x": {0: "n", 2: "h", 3: "w"}}
            torch.onnx.export(net, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        (out,) = session.run(None, {name: other.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), net(other), rtol=1e-5, atol=1e-5)


def test_transforms(device):
    net = Net().to(device).double()
    net.taps = net.taps.to(device).double()
    x = torch.randn(4, 2, 3, 6, 5, dtype=torch.float64, device=device)

    def loss(x):
        return net(x).square().sum()

    each = torch.stack([net(sample) for sample in x])
    torch.testing.assert_close(vmap(net)(x), each)
    by_autograd = torch.autograd.functional.jacobian(loss, x[0])
    torch.testing.assert_close(grad(loss)(x[0]), by_autograd)
    torch.testing.assert_close(vmap(grad(loss))(x)[0], by_autograd)
    _, tangent = jvp(loss, (x[0],), (x[1],))
    torch.testing.assert_close(tangent, (by_autograd * x[1]).sum())
    # The registered operators' own rule: one call for a batch, and call by call
    args = draw(CASES[3], SNAKE, torch.float64, device, separable=False)
    batch = torch.stack([args[0], args[0] + 1])
    both = vmap(lambda x: OPS.filtered_act.default(x, *args[1:]))(batch)
    torch.testing.assert_close(both[1], FILTERED_ACT(batch[1], *args[1:]))
    alphas = torch.stack([args[2], args[2] + 1])
    both = vmap(lambda x, a: OPS.filtered_act.default(x, args[1], a, *args[3:]))(batch, alphas)
    torch.testing.assert_close(both[1], FILTERED_ACT(batch[1], args[1], alphas[1], *args[3:]))
    biases = torch.stack([args[1], args[1] + 1])
    both = vmap(lambda x, b: OPS.filtered_act.default(x, b, *args[2:]))(batch, biases)
    torch.testing.assert_close(both[1], FILTERED_ACT(batch[1], biases[1], *args[2:]))


@pytest.mark.parametrize("operand", range(1, 8))
def test_vmap_of_the_input_and_one_other_tensor(operand, device):
    args = draw(CASES[3], SNAKE, torch.float64, device)
    batches = [torch.stack([t, t + 1]) for t in (args[0], args[operand])]

    def call(x, t):
        return OPS.filtered_act.default(x, *args[1:operand], t, *args[operand + 1 :])

    both = vmap(call)(*batches)
    for out, *tensors in zip(both, *batches, strict=True):
        torch.testing.assert_close(out, call(*tensors))


def test_batched_gradients(device):
    args = draw(CASES[3], SNAKE, torch.float64, device, separable=False)
    leaves = [t.requires_grad_() for t in args[:4]]
    out = FILTERED_ACT(*args)
    vectors = torch.randn(3, *out.shape, dtype=torch.float64, device=device)
    together = torch.autograd.grad(out, leaves, vectors, is_grads_batched=True, retain_graph=True)
    for i, vector in enumerate(vectors):
        alone = torch.autograd.grad(out, leaves, vector, retain_graph=True)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b)


@pytest.mark.parametrize("operand", range(1, 8))
def test_a_meta_operand_is_refused_by_the_operator(operand):
    args = list(draw(CASES[6], SNAKE, torch.float32, torch.device("cpu")))
    args[operand] = args[operand].to("meta")
    for op in (OPS.filtered_act.default, OPS._filtered_act.default):
        with pytest.raises(ValueError, match="all tensors must be on one device, got cpu and meta"):
            op(*args)
    plain = list(draw(CASES[6], SNAKE, torch.float32, torch.device("meta")))
    grad = torch.ones_like(OPS.filtered_act.default(*plain))
    plain[operand] = torch.empty_like(plain[operand], device="cpu")
    with pytest.raises(ValueError, match="all tensors must be on one device, got "):
        OPS.filtered_act_grad.default(grad, *plain, [True] * 3)


@pytest.mark.parametrize("operand", [0, 4, 5, 6, 7])  # the input and the kernels
def test_one_kernel_of_float64_makes_all_sums_float64(operand, device):
    """They are rounded once to the input's dtype, as those of tensors of float64 are."""
    args = list(draw(CASES[6], SNAKE, torch.float32, device))
    wide = [t.double() if isinstance(t, torch.Tensor) else t for t in args]
    args[operand] = args[operand].double()
    out = OPS.filtered_act.default(*args)
    assert torch.equal(out, OPS.filtered_act.default(*wide).to(args[0].dtype))


@pytest.mark.parametrize("operand", [1, 2, 3])  # bias, alpha and beta
def test_an_operand_of_float64_leaves_the_sums_in_float32(operand, device):
    args = list(draw(CASES[6], SNAKE, torch.float32, device))
    out = OPS.filtered_act.default(*args)
    args[operand] = args[operand].double()
    assert torch.equal(OPS.filtered_act.default(*args), out)


@pytest.mark.parametrize("op", [filtered_lrelu, filtered_snake])
def test_a_subclass_is_asked_first_wherever_it_stands(op, device):
    Logged = logged_tensor()
    x, taps, row = torch.randn(1, 3, 8, device=device), *torch.rand(2, 3, device=device)
    alpha = {"alpha": row} if op is filtered_snake else {}
    x = x if alpha else x[..., None].expand(1, 3, 8, 8)
    logged = {
        "input": {"input": x.as_subclass(Logged)},
        "up_kernel": {"up_kernel": taps.as_subclass(Logged)},
        "bias": {"bias": row.as_subclass(Logged)},
    }
    logged |= {"pair": {"up_kernel": (taps, taps.as_subclass(Logged))}} if not alpha else {}
    for name, argument in logged.items():
        op(**({"input": x, "up": 2, "pad": (1, 1)} | alpha | argument))
        assert op in Logged.calls, name
        Logged.calls.clear()


def test_autocast_changes_nothing(device):
    x = torch.randn(1, 3, 8, 8, device=device, requires_grad=True)
    taps = torch.rand(4, device=device)
    expected = filtered_lrelu(x, taps, taps, up=2, down=2, pad=(2, 2))
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        out = filtered_lrelu(x, taps, taps, up=2, down=2, pad=(2, 2))
    assert torch.equal(out, expected)


# Errors

X, SIGNAL, ONES = torch.ones(2, 3, 4, 5), torch.ones(2, 3, 7), torch.ones(3)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: filtered_lrelu(SIGNAL), ValueError, "input must have 4 dimensions [N, C, H, W], got 3: shape (2, 3, 7)"),
        (lambda: filtered_lrelu(X.long()), TypeError, "input must be float16, bfloat16, float32 or float64, got torch.int64"),
        (lambda: filtered_lrelu(X, 3), TypeError, "up_kernel must be a tensor [kh, kw] or [taps], or a pair of tensors (taps_x, taps_y), got 3 (int)"),
        (lambda: filtered_lrelu(X, None, torch.ones(0)), ValueError, "down_kernel must have at least one tap, got shape (0,)"),
        (lambda: filtered_lrelu(X, (ONES, X)), ValueError, "up_kernel as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, got 2 of shapes [(3,), (2, 3, 4, 5)]"),
        (lambda: filtered_lrelu(X, bias=torch.ones(4)), ValueError, "bias must be [C] with the C of input, 3, got shape (4,)"),
        (lambda: filtered_lrelu(X, bias=1.0), TypeError, "bias must be a tensor or None, got 1.0 (float)"),
        (lambda: filtered_lrelu(X, up=0), ValueError, "up must be >= 1 in both axes, got up=0"),
        (lambda: filtered_lrelu(X, down=(2, 1, 1)), ValueError, "down must be an int or 2 ints (x, y), got down=(2, 1, 1)"),
        (lambda: filtered_lrelu(X, pad=1), TypeError, "pad must be 2 ints (before, after) for both axes or 4 ints (x0, x1, y0, y1), got pad=1 (int)"),
        (lambda: filtered_lrelu(X, down_pad=(1,)), ValueError, "down_pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), got 1: down_pad=(1,)"),
        (lambda: filtered_lrelu(X, negative_slope=-1), ValueError, "negative_slope must be finite and >= 0, got negative_slope=-1"),
        (lambda: filtered_lrelu(X, gain=0), ValueError, "gain must be finite and > 0, got gain=0"),
        (lambda: filtered_lrelu(X, clamp=-1), ValueError, "clamp must be finite and > 0, got clamp=-1"),
        (lambda: filtered_lrelu(X, padding_mode="reflect"), ValueError, "padding_mode must be 'zeros' or 'replicate', got padding_mode='reflect'"),
        (lambda: filtered_lrelu(X, padding_mode=1), TypeError, "padding_mode must be a string, got 1 (int)"),
        (lambda: filtered_lrelu(X, torch.ones(9), down_pad=(9, 9)), ValueError, "the upsampled signal must be at least 1x1 (height x width), got -4x-3 from input 4x5, up_kernel 9x9, down_kernel 1x1, up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0), down_pad=(9, 9, 9, 9), padding_mode='zeros'"),
        (lambda: filtered_lrelu(X, None, torch.ones(9)), ValueError, "output must be at least 1x1 (height x width), got -4x-3 from input 4x5"),
        (lambda: filtered_lrelu(X[:, :, :0], pad=(3, 3), padding_mode="replicate"), ValueError, "input must be at least 1x1 (height x width), got 0x5"),
        (lambda: filtered_snake(X, ONES), ValueError, "input must have 3 dimensions [N, C, L], got 4: shape (2, 3, 4, 5)"),
        (lambda: filtered_snake(SIGNAL, None), TypeError, "alpha must be a tensor [C], got None (NoneType)"),
        (lambda: filtered_snake(SIGNAL, 1.0), TypeError, "alpha must be a tensor [C], got 1.0 (float)"),
        (lambda: filtered_snake(SIGNAL, ONES, torch.ones(1, 3, 1)), ValueError, "beta must be [C] with the C of input, 3, got shape (1, 3, 1)"),
        (lambda: filtered_snake(SIGNAL, ONES, None, torch.ones(2, 2)), ValueError, "up_kernel must have 1 dimension [taps], got 2: shape (2, 2)"),
        (lambda: filtered_snake(SIGNAL, ONES, None, None, torch.ones(20)), ValueError, "output must be at least 1 (length), got -12 from input 7, up_kernel 1, down_kernel 20, up=(1,), down=(1,), pad=(0, 0), down_pad=(0, 0), padding_mode='zeros'"),
        (lambda: filtered_snake(SIGNAL, ONES, down_pad=(1, 2, 3)), ValueError, "down_pad must be an int or have 2 values (before, after), got 3: down_pad=(1, 2, 3)"),
        (lambda: filtered_snake(SIGNAL, ONES.to("meta")), ValueError, "alpha must be on the device of input, got alpha on meta and input on cpu"),
    ],
)  # fmt: skip
def test_errors(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
