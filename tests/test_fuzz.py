# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: E501
"""A short run of scripts/fuzz_ops.py, the oracle that it compares with, and what it has found.

That oracle is held against the loops of oracle.py, and its gradients against its own values.
"""

import dataclasses
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from resample_layers import FilteredLeakyReLU, FilteredSnake, UpFirDnUpsample, filters, ops
from resample_layers.compat import basicsr, bigvgan, mmcv, nvidia, rosinality
from resample_layers.ops import upfirdn3d
from scripts import fuzz_arguments, fuzz_ops
from scripts.fuzz_ops import Case, arrays_of, call_of, tensors_of

from . import oracle, vector_oracle

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def by_loops(case, a):
    """The call's result by the definition."""
    pad, (slope, gain, clamp) = case.pads[0], case.constants

    def leaky(z):
        value = gain * np.where(z > 0, z, slope * z)
        return value if clamp is None else np.clip(value, -clamp, clamp)

    if case.is_filtered:
        x, function, flat = a["input"][0], leaky, case.dims == 1
        alpha, beta, before = (
            a[name][0].reshape(-1, 1, 1) if name in a else None
            for name in ("alpha", "beta", "bias_before")
        )
        if case.op == "filtered_snake":
            function = lambda z: z + np.sin(alpha * z) ** 2 / (beta + 1e-9)  # noqa: E731
        kernels = [a[name] if len(a[name]) > 1 else a[name][0] for name in ("first", "second")]
        up, down, pads = case.up, case.down, case.pads
        if flat:  # a signal is an image of one row
            x, kernels = x[:, :, None], [k[None] for k in kernels]
            up, down, pads = (*up, 1), (*down, 1), [(*pad, 0, 0) for pad in pads]
        x = x if before is None else x + before
        out = oracle.filtered(x, kernels, function, up, down, pads, case.replicate)
        return out[:, :, 0] if flat else out
    if len(a["first"]) == 1 and case.dims == 2:
        z = oracle.upfirdn2d(a["input"][0], a["first"][0], case.up, case.down, pad)
    else:
        z = oracle.separable(a["input"][0], a["first"], case.up, case.down, pad)
    if case.op != "bias_act":
        return z
    if "scale" in a:
        z = z * a["scale"][0][:, :, None, None]
    if "noise" in a:
        z = z + a["noise"][0] * (a["noise_strength"][0] if "noise_strength" in a else 1.0)
    return leaky(z + a["bias"][0][:, None, None] if "bias" in a else z)


@seed(1)
@settings(max_examples=40, **FEW)
@given(case=fuzz_ops.cases())
def test_the_second_oracle_equals_the_loops(case):
    case = dataclasses.replace(case, dtype=torch.float64)
    assume(max(case.shape) <= 8)  # the loops take long
    a = arrays_of(case, tensors_of(case))
    wanted, ours = by_loops(case, a), vector_oracle.value(call_of(case), a)
    assert ours.shape == wanted.shape
    bound = vector_oracle.value(vector_oracle.bound_of(call_of(case)), fuzz_ops.each(abs, a))
    assert (abs(ours - wanted) <= 1e-13 * bound).all()
    assert (abs(ours) <= bound * (1 + 1e-12)).all()


@seed(2)
@settings(max_examples=40, **FEW)
@given(case=fuzz_ops.cases())
def test_the_second_oracle_s_gradients_are_those_of_its_values(case):
    """``<gradients, v>`` is the derivative of ``<value, g>`` along ``v``; so for the next."""
    case = dataclasses.replace(case, dtype=torch.float64)
    call, a = call_of(case), arrays_of(case, tensors_of(case))
    draw = np.random.default_rng(case.values)
    v = fuzz_ops.each(lambda t: draw.standard_normal(t.shape), a)
    w = fuzz_ops.each(lambda t: draw.standard_normal(t.shape), a)
    branches, step = vector_oracle.branches_of(call, a), 1e-30

    def value(t):
        return vector_oracle.value(call, t, branches)

    def inner(first, second):
        return sum(
            (x * y).sum() for name in first for x, y in zip(first[name], second[name], strict=True)
        )

    moved = fuzz_ops.each(lambda t, d: t + 1j * step * d, a, v)
    g = draw.standard_normal(value(a).shape)
    along_v = value(moved).imag / step
    grads = vector_oracle.gradients(call, a, g, branches)
    sizes = vector_oracle.gradients(vector_oracle.bound_of(call), fuzz_ops.each(abs, a), abs(g))
    size = inner(sizes, fuzz_ops.each(abs, v))
    assert abs(inner(grads, v) - (along_v * g).sum()) <= 1e-12 * size
    # Along a second direction, by a difference
    hessian, of_g = vector_oracle.second_order(call, a, v, g, branches)
    np.testing.assert_array_equal(of_g, along_v)

    def slope_at(far):
        at = fuzz_ops.each(lambda t, d, e: t + far * e + 1j * step * d, a, v, w)
        return (value(at).imag / step * g).sum()

    difference = (slope_at(1e-4) - slope_at(-1e-4)) / 2e-4
    scales, _ = vector_oracle.second_order(
        vector_oracle.bound_of(call), fuzz_ops.each(abs, a), fuzz_ops.each(abs, v), abs(g)
    )
    scale = inner(scales, fuzz_ops.each(abs, w))
    assert abs(inner(hessian, w) - difference) <= 1e-5 * (scale + size)


def test_random_calls_of_every_op():
    """80 calls on the backend of this process; ``make fuzz`` makes more, on all."""
    counts = fuzz_ops.Counts()
    assert fuzz_ops.fuzz(80, 2, 1e9, counts) == 80
    total = Counter()
    for what, count in counts.by.items():
        total[what] += count
        total[what.split(": ")[1]] += count
    assert total["left out, near a kink"] < 8
    names = "upfirdn2d", "bias_act", "filtered_lrelu", "filtered_snake", "upfirdn1d", "upfirdn3d"
    for op in names:
        assert total[f"{op}: results"] > 0
    for order in ("gradients in input", "gradients in first", "second order"):
        assert total[order] > 8


CALL = Case(
    "upfirdn2d", "public", (1, 2, 5, 4), torch.float64, "contiguous",
    (("pair", (3, 2), torch.float64),), (2, 1), (1, 2), ((2, 1, 1, 0),),
    ("input", "first"), True, 0,
)  # fmt: skip
OPERANDS = "scale", "bias", "noise", "noise_strength"
CALL_WITH_ALL = dataclasses.replace(
    CALL, op="bias_act", needs=("input", "first", *OPERANDS), operands=OPERANDS,
    constants=(0.2, 1.5, 2.0),
)  # fmt: skip
PLACES = [(CALL, place) for place in ("input", "first", "out")]
PLACES += [(CALL_WITH_ALL, place) for place in ("input", "first", *OPERANDS, "out")]


@pytest.mark.parametrize(
    ("case", "place"), PLACES, ids=[f"{case.op}-{place}" for case, place in PLACES]
)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_fuzzer_sees_what_is_wrong(order, case, place, monkeypatch):
    """A result, a gradient in one tensor or a second order that is off by 1e-9."""

    class Wrong(torch.autograd.Function):
        """The identity, whose derivative of one order is wrong."""

        @staticmethod
        def forward(ctx, x, order):
            ctx.order = order
            return x * (1 + 1e-9) if order == 0 else x.clone()

        @staticmethod
        def backward(ctx, grad):
            return (Wrong.apply(grad, ctx.order - 1) if ctx.order else grad), None

    call = fuzz_ops.run

    def broken(case, t):
        t = {**t, place: tuple(Wrong.apply(x, order) for x in t[place])} if place in t else t
        out = call(case, t)
        return Wrong.apply(out, order) if place == "out" else out

    fuzz_ops.check(case, fuzz_ops.Counts())
    monkeypatch.setattr(fuzz_ops, "run", broken)
    wrong = ("result", "gradient in", "second order in")[order]
    with pytest.raises(AssertionError, match=f"^{wrong}.* are wrong, by up to"):
        fuzz_ops.check(case, fuzz_ops.Counts())


def test_the_fuzzer_sees_a_nan_that_strays_to_another_scale(monkeypatch):
    """As a kernel does that sums the scale's gradient over what is not its channel's."""
    case = dataclasses.replace(CALL_WITH_ALL, constants=(0.2, 1.5, None))
    counts = fuzz_ops.Counts()
    fuzz_ops.check_nan(case, counts)
    assert counts.by["bias_act: NaN in the gradient of a scale"] == 1
    call = fuzz_ops.run

    def broken(case, t):
        (scale,) = t["scale"]
        return call(case, {**t, "scale": (scale + 0 * scale.sum(1, keepdim=True),)})

    monkeypatch.setattr(fuzz_ops, "run", broken)
    with pytest.raises(AssertionError, match="a NaN is in another scale's gradient"):
        fuzz_ops.check_nan(case, counts)


# Arguments


@seed(3)
@settings(max_examples=300, **FEW)
@given(data=st.data())
def test_odd_arguments_are_refused_in_a_sentence(data):
    """``make fuzz-arguments`` goes on for long, and looks where new code is reached."""
    outcomes = Counter()
    fuzz_arguments.call(lambda n: data.draw(st.integers(0, n - 1)), outcomes)
    assert outcomes.total() == 1


HUGE, SPARSE = 10**400, torch.ones(1, 2, 4, 5).to_sparse()
X, W = torch.ones(1, 2, 4, 5), torch.ones(3, 2, 3, 3)
B = torch.ones(2, dtype=torch.bool)
META = X.to("meta"), W.to("meta", torch.float16)  # there is no autocast for this device
Odd = fuzz_arguments.Odd
FOUND = [
    (lambda: ops.bias_act(X, gain=HUGE), "gain must be finite and > 0, got gain=1000"),
    (lambda: ops.bias_act(X, clamp=Fraction(HUGE)), "clamp must be finite and > 0, got clamp=Fract"),
    (lambda: FilteredSnake(2, alpha=HUGE), "alpha must be finite and > 0, got alpha=1000"),
    (lambda: FilteredLeakyReLU(2, filter_size=HUGE), "filter_size must be an int of 32 bits, got 1"),
    (lambda: FilteredLeakyReLU(2.0), "channels must be an int, got 2.0"),
    (lambda: ops.upfirdn2d(X, torch.ones(2), np.ones(2)), "up must be made of ints, got up=array([1"),
    (lambda: ops.upfirdn2d(SPARSE, torch.ones(2)), "input must be dense, got a tensor of layout"),
    (lambda: ops.upfirdn2d(X, torch.ones(2).to_sparse()), "kernel must be dense, got a tensor of"),
    (lambda: ops.bias_act(X, torch.ones(2).to_sparse()), "bias must be dense, got a tensor of"),
    (lambda: UpFirDnUpsample(torch.ones(2).to_sparse()), "resample_kernel must be dense, got a ten"),
    (lambda: UpFirDnUpsample([torch.ones(2).to_sparse()]), "resample_kernel must be dense, got a t"),
    (lambda: basicsr.make_resample_kernel([torch.ones(2).to_sparse()]), "k must be dense, got a tens"),
    (lambda: UpFirDnUpsample([torch.ones((), device="meta")]), "resample_kernel must hold values, g"),
    (lambda: UpFirDnUpsample(padding_mode=np.ones(2)), "padding_mode must be one of zeros, reflect"),
    (lambda: ops.fused_leaky_relu(X, None, set()), "negative_slope must be a number, got negative_s"),
    (lambda: ops.fused_leaky_relu(X, scale=HUGE), "scale must be finite, got scale=1000"),
    (lambda: ops.FusedLeakyReLU(-1), "channel must be >= 0, got -1"),
    (lambda: ops.FusedLeakyReLU(2, bias=torch.ones(2)), "bias must be a bool, got bias=tensor([1.,"),
    (lambda: filters.kaiser_window(torch.ones(2), 1.0), "numtaps must be an int, got tensor([1.,"),
    (lambda: filters.kaiser_window([[0.5] * 99], 1.0), "numtaps must be an int, got [[0.5, 0.5,"),
    (lambda: filters.phases_sum_alike([], 2), "taps must have at least one tap, got []"),
    (lambda: filters.phases_sum_alike([1, 3], 0), "factor must be >= 1, got 0"),
    (lambda: filters.phases_sum_alike("ab", 2), "taps must be a list, tuple, array or tensor of ta"),
    (lambda: filters.design_lowpass(SPARSE, 8.0, 6.0, 32.0), "numtaps must be an int, got Tensor"),
    (lambda: ops.fused_leaky_relu(SPARSE), "input must be dense, got a tensor of layout"),
    (lambda: ops.fused_leaky_relu(X, torch.ones(2).to_sparse()), "bias must be dense, got a tensor"),
    (lambda: nvidia.fma(X, 1.0, X), "b must be a tensor of numbers, got float"),
    (lambda: nvidia.fma(X, X, X.to(torch.float8_e5m2)), "c must be a tensor of numbers, got torch.f"),
    (lambda: nvidia.fma(B, B, B), "one of a, b and c must be of numbers, got bools alone"),
    (lambda: nvidia.fma(X, X, SPARSE), "c must be dense, got a tensor of layout"),
    (lambda: nvidia.fma(X, torch.ones(3), X), "a, b and c must have shapes that broadcast, got (1,"),
    (lambda: nvidia.fma(X, X, torch.ones((), device="meta")), "c must be on the device of a, got c"),
    (lambda: nvidia.bias_act(X, act={}), "act must be one of linear, relu, lrelu, tanh, sigmoid,"),
    (lambda: nvidia.bias_act(X, alpha=X), "alpha must be a number, got alpha=Tensor"),
    (lambda: nvidia.bias_act(X, alpha=HUGE), "alpha must be finite, got alpha=1000"),
    (lambda: nvidia.bias_act(X, impl=X), "impl must be 'ref' or 'cuda', got impl=Tensor"),
    (lambda: nvidia.bias_act(SPARSE), "x must be dense, got a tensor of layout"),
    (lambda: nvidia.bias_act(X, torch.ones(2).to_sparse()), "b must be dense, got a tensor of lay"),
    (lambda: nvidia.bias_act(X, torch.ones(2), dim=Odd()), "dim must be an int in [0, 4), got d"),
    (lambda: nvidia.upfirdn2d(X, None, flip_filter=X), "flip_filter must be a bool, got flip_filte"),
    (lambda: nvidia.upfirdn2d(X, torch.ones(2).to_sparse()), "f must be dense, got a tensor of lay"),
    (lambda: nvidia.filtered_lrelu(X, flip_filter=[]), "flip_filter must be a bool, got flip_filte"),
    (lambda: nvidia.filtered_lrelu(X, clamp=-HUGE), "clamp must be > 0 or None, got clamp=-1000"),
    (lambda: nvidia.conv2d_resample(X, W, flip_weight=X), "flip_weight must be a bool, got flip_we"),
    (lambda: nvidia.conv2d_resample(X, W, flip_weight="no"), "flip_weight must be a bool, got flip_we"),
    (lambda: nvidia.conv2d_resample(X, W, flip_weight=np.str_("")), "flip_weight must be a bool, got"),
    (lambda: nvidia.conv2d_resample(X, W, flip_weight=np.ones(2)), "flip_weight must be a bool, got f"),
    (lambda: nvidia.conv2d_resample(X, W, flip_weight=SPARSE), "flip_weight must be a bool, got fl"),
    (lambda: nvidia.conv2d_resample(*META), "w must be of the dtype of x, torch.float32, got torch.fl"),
    (lambda: nvidia.conv2d_resample(X, W.double()), "w must be of the dtype of x, torch.float32, g"),
    (lambda: nvidia.setup_filter(HUGE), "f must be [kh, kw], [taps], one number or None, as a list"),
    (lambda: nvidia.setup_filter(SPARSE), "f must be dense, got a tensor of layout"),
    (lambda: nvidia.setup_filter([1], normalize=X), "normalize must be a bool, got normalize=Tens"),
    (lambda: nvidia.setup_filter([1], separable=X), "separable must be a bool, got separable=Tens"),
    (lambda: nvidia.setup_filter([1], 10**6), "device must be one of this machine, got 1000000"),
    (lambda: nvidia.setup_filter([1], 2**80), "device must be the name of one, got device=120892"),
    (lambda: mmcv.FusedBiasLeakyReLU(X), "num_channels must be an int, got num_channels=Tensor"),
    (lambda: mmcv.FusedBiasLeakyReLU(HUGE), "num_channels must be an int of 32 bits, got num_chan"),
    (lambda: basicsr.upfirdn2d(X, X[0, 0], pad=(X, X, 1, 1)), "pad must be made of ints, got pad="),
    (lambda: basicsr.upfirdn2d(X, X[0, 0], pad=[X] * 9), "pad must be 2 ints (before, after) for"),
    (lambda: nvidia.bias_act(X, gain="two"), "gain must be a number, got gain='two'"),
    (lambda: nvidia.bias_act(X, alpha=np.ones(2)), "alpha must be a number, got alpha=array([1., 1"),
    (lambda: rosinality.FusedLeakyReLU(2, 1), "bias must be True or False, got bias=1: a slope goe"),
    (lambda: basicsr.upfirdn2d(X, X[0, 0], pad=np.ones(2)), "pad must be made of ints, got pad=[1.0"),
    (lambda: rosinality.FusedLeakyReLU(2, X), "bias must be True or False, got bias=Tensor: a slo"),
    (lambda: rosinality.fused_leaky_relu(X, SPARSE), "bias must be dense, got a tensor of layout"),
    (lambda: bigvgan.Snake(2, alpha_trainable=X), "alpha_trainable must be a bool, got alpha_train"),
    (lambda: bigvgan.Snake(2, alpha_logscale=X), "alpha_logscale must be a bool, got alpha_logsca"),
    (lambda: bigvgan.SnakeBeta(HUGE), "in_features must be an int of 32 bits, got in_features=100"),
    (lambda: bigvgan.LowPassFilter1d(padding=X), "padding must be a bool, got padding=Tensor"),
    (lambda: bigvgan.LowPassFilter1d(padding_mode=X), "padding_mode must be one of reflect, repli"),
    (lambda: bigvgan.DownSample1d(kernel_size=SPARSE), "kernel_size must be an int, got kernel_siz"),
    (lambda: bigvgan.Activation1d(3), "activation must be a module or a functi"),
    (lambda: bigvgan.Activation1d(torch.nn.ReLU(), fused=X), "fused must be a bool, got fused=Tens"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "sentence"), FOUND, ids=[sentence for _, sentence in FOUND])
def test_arguments_that_were_not_refused_in_a_sentence(call, sentence):
    """Each raised an error of torch's, numpy's or Python's own, or one of many lines."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value).startswith(sentence)
    assert not fuzz_arguments.fault_of(caught.value)


def test_taps_may_be_rows_of_tensors():
    rows = [torch.tensor([1, 3]), torch.tensor([2, 2])]
    for make in (rosinality.make_kernel, basicsr.make_resample_kernel):
        assert torch.equal(make(rows), make([[1, 3], [2, 2]]))


# What the calls have found


@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 0, 3), (1, 1, 0, 2, 3), (2, 1, 2, 3, 0), (1, 1, 0, 0, 0)]
)
@pytest.mark.parametrize(("up", "down"), [((1, 1, 1), (1, 1, 2)), ((1, 1, 3), (2, 1, 1))])
def test_volumes_without_a_sample_are_padded(shape, up, down):
    """The pass across the slices refused an image of no pixel, though the result has voxels."""
    x = torch.zeros(shape, requires_grad=True)
    taps = torch.ones(2, requires_grad=True)
    out = upfirdn3d(x, taps, up, down, (2, 3))
    size = [
        (s * u + 5 - 2) // d + 1 for s, u, d in zip(shape[2:], up[::-1], down[::-1], strict=True)
    ]
    assert out.shape == (*shape[:2], *size)
    assert not out.any()
    grads = torch.autograd.grad(out.sum(), (x, taps))
    assert grads[0].shape == shape
    assert not grads[1].any()
