# SPDX-License-Identifier: BSD-3-Clause
"""Taps and pixels that are not finite: sums run over the samples that exist.

Neither the zeros of a padding nor inserted zeros are multiplied, so that a NaN or infinite tap
over them leaves no trace; a NaN pixel reaches the outputs whose window covers it, and no others.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings

from resample_layers import geometry
from resample_layers.ops import native, upfirdn2d, upfirdn2d_bias_act, upfirdn2d_native
from scripts import fuzz_ops

from . import oracle

RATES = [
    ((1, 1), (1, 1), (2, 1, 1, 2)),
    ((2, 2), (1, 1), (2, 1, 2, 1)),
    ((1, 1), (2, 2), (1, 1, 1, 1)),
    ((3, 2), (2, 1), (-1, 5, 3, 0)),
    ((5, 1), (1, 1), (9, 2, 8, 9)),  # outputs that no sample reaches
]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def along(x, taps, axis, up, down, pad):
    """The op along one axis of an array of 4, and which outputs a sample reaches."""
    shape = [1, 1]
    shape[axis - 2] = len(taps)
    factors, pads = [1, 1], [0, 0, 0, 0]
    at = 3 - axis  # (x, y)
    rates = ([*factors], [*factors])
    rates[0][at], rates[1][at] = up, down
    pads[2 * at : 2 * at + 2] = pad
    exists = oracle.padded_samples(np.ones_like(x), rates[0], pads) > 0
    u = oracle.padded_samples(x, rates[0], pads)
    count = u.shape[axis] - len(taps) + 1
    total, reached = 0.0, False
    for i, tap in enumerate(taps[::-1]):
        window = [slice(None)] * 4
        window[axis] = slice(i, i + count, down)
        there = exists[tuple(window)]
        total = total + np.where(there, tap * np.where(there, u[tuple(window)], 0.0), 0.0)
        reached = reached | there
    return total, reached


def definition(x, kernel, up, down, pad):
    """The op over existing samples: a kernel [kh, kw], or (taps_x, taps_y) along y, then x."""
    with np.errstate(invalid="ignore"):
        if isinstance(kernel, tuple):
            columns, rows = along(x, kernel[1], 2, up[1], down[1], pad[2:])
            out, _ = along(columns, kernel[0], 3, up[0], down[0], pad[:2])
            return np.where(rows.any(axis=3, keepdims=True), out, 0.0)
        total = 0.0
        for i, row in enumerate(kernel):  # one row of taps at a time
            tap = np.zeros(len(kernel))
            tap[i] = 1.0
            part, _ = along(x, tap, 2, up[1], down[1], pad[2:])
            out, _ = along(part, row, 3, up[0], down[0], pad[:2])
            here, _ = along(np.ones_like(x), tap, 2, up[1], down[1], pad[2:])
            total = total + np.where(here.any(axis=3, keepdims=True), out, 0.0)
        return total


def assert_same(out, wanted, dtype):
    got = out.double().numpy()
    wanted = torch.from_numpy(wanted).to(torch.float32 if dtype != torch.float64 else dtype)
    wanted = wanted.to(dtype).double().numpy()
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert (got[np.isinf(wanted)] == wanted[np.isinf(wanted)]).all()
    finite = np.isfinite(wanted)
    np.testing.assert_allclose(got[finite], wanted[finite], atol=20 * oracle.TOLERANCE[dtype])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("up", "down", "pad"), RATES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "y", "2-D"])
def test_taps_are_not_multiplied_with_padding(where, bad, up, down, pad, dtype, layout):
    x = torch.randn(2, 3, 5, 6).to(dtype).contiguous(memory_format=layout)
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    kernel = torch.randn(3, 4, dtype=accumulate)
    taps_x, taps_y = torch.randn(4, dtype=accumulate), torch.randn(3, dtype=accumulate)
    kernel[0, 0] = (taps_x if where == "x" else taps_y)[0] = bad
    image = x.double().numpy()
    if where == "2-D":
        wanted = definition(image, kernel.numpy(), up, down, pad)
        out = upfirdn2d(x, kernel, up, down, pad)
    else:
        wanted = definition(image, (taps_x.numpy(), taps_y.numpy()), up, down, pad)
        out = upfirdn2d(x, (taps_x, taps_y), up, down, pad)
    assert not np.isnan(wanted).all()
    assert_same(out, wanted, dtype)


@seed(4)
@settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(case=fuzz_ops.cases())
def test_a_nan_is_where_windows_cover_it_and_nowhere_else(case):
    """In results and in gradients of every op, by every door, with zeros among the taps."""
    fuzz_ops.check_nan(case, fuzz_ops.Counts())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_clamp_is_at_most_the_largest_finite_number(dtype):
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.full((1, 1, 2, 3), torch.inf, dtype=dtype)
    one = torch.ones(1, dtype=accumulate)
    out = upfirdn2d_bias_act(x, one, clamp=1e300, gain=1.0)
    largest = min(1e300, torch.finfo(accumulate).max)
    assert (out == torch.tensor(largest, dtype=accumulate).to(dtype)).all()


@pytest.mark.parametrize("seed", range(40))
def test_what_transforms_see_is_what_is_computed(seed):
    """The functional walk of native, with kernels that lie wholly in the padding, too."""
    draw = np.random.default_rng(seed)
    h, w, kh, kw = draw.integers(1, [6, 6, 5, 5])
    up, down = (tuple(draw.integers(1, 5, 2).tolist()) for _ in range(2))
    pad = draw.integers(-1, 7, 4).tolist()
    taps_x, taps_y = draw.standard_normal(kw), draw.standard_normal(kh)
    for taps in (taps_x, taps_y):
        taps[draw.integers(len(taps))] = draw.choice([np.nan, np.inf, -np.inf])
    x = draw.standard_normal((1, 1, h, w))
    if min(geometry.output_sizes((h, w), up, down, pad, (kh, kw))) < 1:
        pad = [7, 7, 7, 7]
    wanted = definition(x, (taps_x, taps_y), up, down, pad)
    image, pair = torch.from_numpy(x), (torch.from_numpy(taps_x), torch.from_numpy(taps_y))
    for kernel in (pair, torch.outer(pair[1], pair[0])):
        call = (kernel, *up, *down, *pad)
        plain = upfirdn2d_native(image, *call)
        assert_same(
            upfirdn2d_native(image.requires_grad_(), *call).detach(), plain.numpy(), torch.float64
        )
        image = image.detach()
    assert_same(upfirdn2d_native(image, pair, *up, *down, *pad), wanted, torch.float64)


def test_the_gradient_of_a_clamp_beyond_what_is_finite():
    """The limit is the largest finite number, and what reached it has no gradient."""
    largest, one = torch.finfo(torch.float32).max, torch.ones(1)
    for op in (upfirdn2d_bias_act, native_bias_act):
        image = torch.tensor([[[[1.0, largest]]]], requires_grad=True)
        out = op(image, one, gain=1e10, clamp=1e300)
        assert out.flatten().tolist() == [1e10, largest]
        (grad,) = torch.autograd.grad(out.sum(), image)
        assert (grad == 0).flatten().tolist() == [False, True]


def native_bias_act(image, taps, gain, clamp):
    rest = (1, 1), (1, 1), (0, 0, 0, 0), 0.2, gain, clamp
    return native.resample_bias_act(image, taps, taps, None, None, None, None, *rest)
