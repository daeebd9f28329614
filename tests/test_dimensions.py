# SPDX-License-Identifier: BSD-3-Clause
"""Signals [N, C, L] and volumes [N, C, D, H, W]: the op and the layers beyond images."""

import copy
import itertools
import pickle
import random
import re
import warnings

import numpy as np
import pytest
import scipy.signal
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch.func import grad, jvp, vmap

import resample_layers
from resample_layers import (
    UpFirDnDownsample1d,
    UpFirDnDownsample3d,
    UpFirDnSmooth1d,
    UpFirDnSmooth3d,
    UpFirDnUpsample1d,
    UpFirDnUpsample3d,
    filters,
    geometry,
)
from resample_layers.ops import upfirdn1d, upfirdn3d
from resample_layers.ops.native import is_channels_last

from . import oracle
from .calls import logged_tensor
from .test_layers import field_pads

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYERS = {
    1: (UpFirDnUpsample1d, UpFirDnDownsample1d, UpFirDnSmooth1d),
    3: (UpFirDnUpsample3d, UpFirDnDownsample3d, UpFirDnSmooth3d),
}
BOTH = [(dims, layer) for dims in (1, 3) for layer in LAYERS[dims]]
CONV = {1: F.conv1d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 3: F.conv_transpose3d}
OP = {1: upfirdn1d, 3: upfirdn3d}
pytestmark = pytest.mark.filterwarnings("ignore:the phases of resample_kernel")


def samples(dims, dtype=torch.float32, device="cpu", size=(7, 6, 9)):
    return torch.randn(2, 3, *size[3 - dims :], device=device).to(dtype)


def channels_innermost(x):
    """The same values, channels after the samples in memory: channels_last_3d of volumes."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def is_channels_innermost(x):
    return x.movedim(1, -1).is_contiguous()


# Slices of larger tensors, so that no stride is the usual one
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels innermost": channels_innermost,
    "part": lambda x: F.pad(x, (1, 2) * (x.dim() - 2))[(..., *[slice(1, -2)] * (x.dim() - 2))],
    "every other": lambda x: torch.stack([x, -x], -1)[..., 0],
}


def random_call(dims, seed, most=3):
    """Taps, factors and pads by axis that leave at least one output."""
    rng = random.Random(seed)
    while True:
        lengths = [rng.randint(1, 7) for _ in range(dims)]
        up, down = ([rng.randint(1, most) for _ in range(dims)] for _ in range(2))
        pad = [rng.randint(-4, 6) for _ in range(2 * dims)]
        axes = zip((9, 6, 7)[:dims], up, down, pad[::2], pad[1::2], lengths, strict=True)
        if all(geometry.output_size(*axis) > 0 for axis in axes):
            return [torch.randn(n) for n in lengths], up, down, pad


def call(op_dims, x, taps, up, down, pad):
    return OP[op_dims](x, taps[0] if op_dims == 1 else taps, up, down, pad)


# The op


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [1, 3])
def test_values(dims, dtype, layout, device):
    for seed in range(25):
        taps, *rest = random_call(dims, seed)
        x = LAYOUTS[layout](samples(dims, dtype, device))
        out = call(dims, x, [t.to(device) for t in taps], *rest)
        assert out.dtype == dtype
        assert is_channels_innermost(out) if "innermost" in layout else out.is_contiguous()
        oracle.assert_matches_separable(out, x, taps, *rest)


def test_values_along_one_axis_equal_scipy_s(device):
    rng = np.random.default_rng(0)
    for up, down, k in itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2, 5, 12)):
        signal, taps = rng.standard_normal((2, 3, 11)), rng.standard_normal(k)
        expected = scipy.signal.upfirdn(taps, signal, up, down)
        ours = upfirdn1d(
            torch.from_numpy(signal).to(device), torch.from_numpy(taps).to(device),
            up, down, (k - 1, k - up),
        )  # fmt: skip
        np.testing.assert_allclose(ours.cpu().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_one_number_serves_all_axes(device):
    x, k = samples(3, torch.float64, device), torch.randn(4, dtype=torch.float64, device=device)
    expected = upfirdn3d(x, (k, k, k), (3, 3, 3), (2, 2, 2), (1, -2, 1, -2, 1, -2))
    assert torch.equal(upfirdn3d(x, k, 3, 2, (1, -2)), expected)
    expected = upfirdn3d(x, [k, k, k], [1, 1, 1], [1, 1, 1], [2] * 6)
    assert torch.equal(upfirdn3d(x, k, pad=2), expected)
    row = x[:, :, 0, 0]
    assert torch.equal(upfirdn1d(row, k, pad=2), upfirdn1d(row, k, (1,), [1], (2, 2)))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_a_volume_is_three_signals(order, device):
    taps, up, down, pad = random_call(3, 7)
    taps = [t.double().to(device) for t in taps]
    x = samples(3, torch.float64, device)
    expected = x
    for axis in order:
        rows = expected.movedim(-1 - axis, -1)
        rest = up[axis], down[axis], pad[2 * axis : 2 * axis + 2]
        out = upfirdn1d(rows.flatten(1, -2), taps[axis], *rest)
        expected = out.unflatten(1, rows.shape[1:-1]).movedim(-1, -1 - axis)
    torch.testing.assert_close(upfirdn3d(x, taps, up, down, pad), expected)


def test_taps_are_not_rounded_to_half(device):
    one, taps = torch.ones(1, device=device), torch.tensor([1 + 2**-10, -1.0], device=device)
    x = torch.ones(1, 1, 8, device=device, dtype=torch.bfloat16)
    assert torch.equal(upfirdn1d(x, taps), torch.full_like(x[:, :, :7], 2**-10))
    x = torch.ones(1, 1, 4, 5, 6, device=device, dtype=torch.bfloat16)
    for triple in ((taps, one, one), (one, taps, one), (one, one, taps)):
        out = upfirdn3d(x, triple)
        assert torch.equal(out, torch.full_like(out, 2**-10))


def test_the_order_in_memory_is_told_by_strides():
    for dims in (1, 2, 3):
        x = torch.empty(2, 3, *(4, 5, 6)[:dims])
        assert not is_channels_last(x)
        assert is_channels_last(channels_innermost(x))
        assert is_channels_last(channels_innermost(x)[..., 1:])
        if dims > 1:  # columns outermost: neither format
            assert not is_channels_last(channels_innermost(x.movedim(-1, 2)).movedim(2, -1))


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels innermost"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])  # both orders of the two passes
def test_gradients(dims, layout, seed, device):
    taps, *rest = random_call(dims, seed, most=2)
    taps = [t.double().to(device).requires_grad_() for t in taps]
    x = LAYOUTS[layout](samples(dims, torch.float64, device, (4, 3, 5))).requires_grad_()
    rest[-1] = [abs(p) + 2 for p in rest[-1]]
    for args in ((x, *taps), (x, *[t.detach() for t in taps]), (x.detach(), *taps)):
        function = lambda x, *taps: call(dims, x, taps, *rest)  # noqa: E731
        assert torch.autograd.gradcheck(function, args, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, args, fast_mode=True)


@pytest.mark.parametrize("dims", [1, 3])
def test_gradients_of_taps_that_serve_all_axes(dims, device):
    k = torch.randn(3, dtype=torch.float64, device=device, requires_grad=True)
    x = samples(dims, torch.float64, device, (3, 2, 4))[:1, :2].requires_grad_()
    function = lambda x, k: OP[dims](x, k, 2, 1, (2, 1))  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, k))
    assert torch.autograd.gradgradcheck(function, (x, k), fast_mode=True)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("dims", [1, 3])
def test_gradients_keep_the_order_in_memory(dims, up, device):
    for layout in (lambda x: x, channels_innermost):
        x = layout(samples(dims, device=device)).requires_grad_()
        out = OP[dims](x, torch.ones(4, device=device), up, 3 - up, (2, 1))
        (gradient,) = torch.autograd.grad(out, x, torch.randn_like(out))
        assert gradient.stride() == x.stride()


@pytest.mark.parametrize("dims", [1, 3])
def test_empty(dims, device):
    taps = torch.ones(4, device=device, requires_grad=True)
    for empty in (samples(dims, device=device)[:0], samples(dims, device=device)[:, :0]):
        for x in (empty.requires_grad_(), channels_innermost(empty)):
            out = OP[dims](x, taps, 2, 1, (2, 1))
            assert out.shape == (*x.shape[:2], *[2 * side for side in x.shape[2:]])
            out.sum().backward()
    x = samples(dims, device=device)[..., :0]  # nothing but padding
    out = OP[dims](x, taps, pad=3)
    assert out.shape == (2, 3, *[side + 3 for side in x.shape[2:]])
    assert not out.any()


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("layout", ["contiguous", "channels innermost"])
@pytest.mark.parametrize("dims", [1, 3])
def test_no_copy_beside_the_passes(dims, layout, up, device, monkeypatch):
    """Each pass reads the input, or the result of the pass before, where it lies."""
    from resample_layers.ops import dimensions

    read, written = [], []

    def watch(input, *args, inner=dimensions.UPFIRDN2D):
        read.append(input)
        written.append(inner(input, *args))
        assert input.is_contiguous() or is_channels_innermost(input)
        return written[-1]

    monkeypatch.setattr(dimensions, "UPFIRDN2D", watch)
    x = LAYOUTS[layout](samples(dims, device=device))
    out = OP[dims](x, torch.ones(4, device=device), up, 3 - up, (2, 1))
    tensors = [x, *read, *written, out]
    assert len(read) == (1 if dims == 1 else 2)
    places = [tensor.data_ptr() for tensor in tensors]
    assert places[1] == places[0]
    assert places[-1] == places[-2]
    if dims == 3:
        assert read[1].data_ptr() == written[0].data_ptr()


@pytest.mark.parametrize(
    ("up", "down"),
    [((1, 1, 1), (2, 2, 2)), ((2, 2, 2), (1, 1, 1)), ((1, 1, 1), (1, 1, 2)), ((1, 1, 2), (1, 1, 1)),
     ((2, 1, 1), (1, 2, 1)), ((2, 1, 1), (1, 2, 2)), ((3, 1, 2), (1, 2, 1))],
    ids=str,
)  # fmt: skip
def test_the_smaller_tensor_is_in_the_middle(up, down, monkeypatch):
    from resample_layers.ops import dimensions

    read = []

    def watch(input, *args, inner=dimensions.UPFIRDN2D):
        read.append(input)
        return inner(input, *args)

    monkeypatch.setattr(dimensions, "UPFIRDN2D", watch)
    x = torch.randn(1, 1, 12, 12, 12)
    upfirdn3d(x, torch.ones(1), up, down)
    in_slices = 12**3 * up[0] * up[1] // (down[0] * down[1])
    assert read[1].numel() == min(in_slices, 12**3 * up[2] // down[2])


# Compilers, exporters, transforms


# Each of them takes six seconds, and test_values has every pair: here each value stands once
@pytest.mark.parametrize(("dims", "layout"), [(1, "contiguous"), (3, "channels innermost")])
def test_compiled_with_one_graph_for_all_sizes(dims, layout, device):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    op, order = OP[dims], LAYOUTS[layout]

    def step(x, k):
        return op(op(x, k, 2, 1, (2, 1)), k, 1, 2, (1, 1))

    compiled = torch.compile(step, backend=counter, fullgraph=True, dynamic=True)
    for size in ((2, 5, 9, 8, 7), (3, 2, 8, 9, 6), (5, 4, 10, 7, 11)):
        x = order(torch.randn(size[: 2 + dims], device=device))
        k = torch.randn(4, device=device)
        a, b, c, d = (t.clone().requires_grad_() for t in (x, x, k, k))
        ours, expected = compiled(a, c), step(b, d)
        torch.testing.assert_close(ours, expected)
        assert ours.stride() == expected.stride()
        gradient = torch.randn_like(ours)
        for g, h in zip(
            torch.autograd.grad(ours, (a, c), gradient),
            torch.autograd.grad(expected, (b, d), gradient),
            strict=True,
        ):
            torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == 1
    targets = {str(node.target) for graph in counter.graphs for node in graph.graph.nodes}
    assert "resample_layers.upfirdn2d.default" in targets


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("dims", [1, 3])
def test_exported_with_dynamic_shapes(dims, mode, device):
    up, down, _ = LAYERS[dims]
    model = torch.nn.Sequential(down(padding_mode=mode), up((1, 2, 1), padding_mode=mode))
    model = model.to(device)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        model,
        (torch.randn(2, 3, *(10, 12, 16)[:dims], device=device),),
        dynamic_shapes=({0: auto, **{2 + i: auto for i in range(dims)}},),
    )
    for size in ((10, 12, 16), (13, 9, 14)):
        x = torch.randn(3, 3, *size[:dims], device=device)
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("mode", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("dims", [1, 3])
def test_tracers(dims, mode, device):
    up, down, smooth = LAYERS[dims]
    model = torch.nn.Sequential(*[layer(padding_mode=mode) for layer in (up, down, smooth)])
    model = model.to(device)
    x = torch.randn(3, 2, *(11, 8, 9)[:dims], device=device)
    expected = model(x)
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), expected)
    assert [node.target for node in traced.graph.nodes].count(OP[dims]) == 3
    traced = torch.jit.trace(model, torch.randn(1, 2, *(6, 7, 5)[:dims], device=device))
    torch.testing.assert_close(traced(x), expected)  # of other sizes
    operators = {node.kind() for node in traced.inlined_graph.nodes()}
    assert not any("resample_layers" in kind for kind in operators)


@pytest.mark.parametrize("layout", ["contiguous", "channels innermost"])
@pytest.mark.parametrize("dims", [1, 3])
def test_transforms(dims, layout, device):
    def function(x, k):
        return OP[dims](x, k, 2, 1, (2, -1))

    x = torch.stack([samples(dims, torch.float64, device, (3, 2, 4)) for _ in range(3)])
    k = torch.randn(3, 4, dtype=torch.float64, device=device)
    one = LAYOUTS[layout](x[0])
    expected = torch.stack([function(a, b) for a, b in zip(x, k, strict=True)])
    torch.testing.assert_close(vmap(function)(x, k), expected)
    torch.testing.assert_close(vmap(function, (1, None), 1)(x.movedim(0, 1), k[0])[:, 1],
                               function(x[1], k[0]))  # fmt: skip
    _, tangent = jvp(function, (one, k[0]), (x[1], k[1]))
    expected = function(x[1], k[0])
    for axis in range(dims):  # taps that serve all axes
        taps = [k[0]] * axis + [k[1]] + [k[0]] * (dims - 1 - axis)
        expected = expected + function(one, taps[0] if dims == 1 else taps)
    torch.testing.assert_close(tangent, expected)
    leaves = one.clone().requires_grad_(), k[0].clone().requires_grad_()
    loss = lambda x, k: function(x, k).pow(3).sum()  # noqa: E731
    for ours, theirs in zip(
        grad(loss, (0, 1))(one, k[0]), torch.autograd.grad(loss(*leaves), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dims", [1, 3])
def test_fake_and_meta_tensors(dims, device):
    x = torch.empty(2, 3, *[7, 6, 5][:dims], device="meta")
    out = OP[dims](x, torch.empty(4, device="meta"), 2, 1, (2, 1))
    assert out.is_meta
    assert out.shape == (2, 3, *[14, 12, 10][:dims])
    with torch._subclasses.FakeTensorMode():
        y = channels_innermost(torch.empty(x.shape, device=device)).requires_grad_()
        out = OP[dims](y, torch.empty(4, device=device), 2, 1, (2, 1))
        assert out.shape == (2, 3, *[14, 12, 10][:dims])
        assert is_channels_innermost(out)


@pytest.mark.parametrize("dims", [1, 3])
def test_subclasses_are_asked_first(dims, device):
    Logged = logged_tensor()
    x, k = samples(dims, device=device), torch.ones(2, device=device)
    expected = OP[dims](x, k, 2, pad=1)
    logged = k.as_subclass(Logged)
    for args in ((x.as_subclass(Logged), k), (x, logged if dims == 1 else (k, k, logged))):
        Logged.calls.clear()
        out = OP[dims](*args, 2, pad=1)
        assert Logged.calls[0] is OP[dims]
        assert isinstance(out, Logged)
        assert torch.equal(out.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("dims", [1, 3])
def test_autocast_changes_nothing(dims, device):
    x, k = samples(dims, device=device), torch.randn(4, device=device)
    expected = OP[dims](x, k, 2, 1, (2, 1))
    with torch.autocast(device.type, torch.bfloat16):
        assert torch.equal(OP[dims](x, k, 2, 1, (2, 1)), expected)


# The layers


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("dims", [1, 3])
def test_sizes_and_values(dims, taps, factor):
    values = torch.rand(taps, dtype=torch.float64) + 0.1
    unit = values / values.sum()
    x = samples(dims, torch.float64, size=(7, 5, 9))
    up_layer, down_layer, smooth_layer = LAYERS[dims]
    up = up_layer(values, factor).double()(x)
    assert up.shape == (2, 3, *[side * factor for side in x.shape[2:]])
    ones, factors = (1,) * dims, (factor,) * dims
    pads = field_pads("up", taps, factor) * dims
    oracle.assert_matches_separable(up, x, [unit * factor] * dims, factors, ones, pads)
    down = down_layer(values, factor).double()(x)
    assert down.shape == (2, 3, *[side // factor for side in x.shape[2:]])
    pads = field_pads("down", taps, factor) * dims
    oracle.assert_matches_separable(down, x, [unit] * dims, ones, factors, pads)
    smooth = smooth_layer(values).double()(x)
    assert smooth.shape == x.shape
    pads = field_pads("smooth", taps, 1) * dims
    oracle.assert_matches_separable(smooth, x, [unit] * dims, ones, ones, pads)


def test_axes_may_differ():
    taps, factor = (1.0, 3.0, 3.0, 1.0), (3, 1, 2)
    x = samples(3, torch.float64, size=(5, 6, 7))
    unit = torch.tensor(taps, dtype=torch.float64) / 8
    layer = UpFirDnUpsample3d(taps, factor).double()
    assert [float(k.sum()) for k in (layer.kernel_x, layer.kernel_y, layer.kernel_z)] == [3, 1, 2]
    pads = sum((field_pads("up", 4, f) for f in factor), ())
    gains = [unit * f for f in factor]
    oracle.assert_matches_separable(layer(x), x, gains, factor, (1, 1, 1), pads)
    out = UpFirDnDownsample3d(taps, factor).double()(x)
    pads = sum((field_pads("down", 4, f) for f in factor), ())
    oracle.assert_matches_separable(out, x, [unit] * 3, (1, 1, 1), factor, pads)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 4])
@pytest.mark.parametrize("dims", [1, 3])
def test_smooth_beside_a_convolution_restores_the_size(dims, kernel_size, factor):
    x = samples(dims, size=(6, 12, 6))
    weight, smooth = torch.randn(3, 3, *[kernel_size] * dims), LAYERS[dims][2]
    layer = smooth([1] * 5, upsample_factor=factor, kernel_size=kernel_size)
    if factor > 1:
        up = layer(CONV_TRANSPOSE[dims](x, weight, stride=factor))
        assert up.shape == (2, 3, *[side * factor for side in x.shape[2:]])
    layer = smooth([1] * 5, downsample_factor=factor, kernel_size=kernel_size)
    down = CONV[dims](layer(x), weight, stride=factor)
    assert down.shape == (2, 3, *[side // factor for side in x.shape[2:]])


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize(("dims", "layer"), BOTH)
def test_padding_modes_equal_padding_by_hand(dims, layer, mode):
    """Pad far with torch's mode, apply the zero-padded layer, cut the middle out."""
    plain, ours = layer([1, 2, 4, 2]), layer([1, 2, 4, 2], padding_mode=mode)
    x = samples(dims, size=(6, 8, 10))
    wide = plain(F.pad(x, (4,) * (2 * dims), mode=mode))
    out = ours(x)
    assert out.shape == plain(x).shape
    edge = 4 * out.shape[-1] // x.shape[-1]
    middle = wide[(..., *[slice(edge, edge + side) for side in out.shape[2:]])]
    torch.testing.assert_close(out, middle)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_each_axis_is_continued_by_its_own_pads(mode):
    x, factor = samples(3, size=(8, 6, 7)), (1, 2, 4)
    layer = UpFirDnDownsample3d([1, 2, 3, 4, 4, 3, 2, 1], factor, mode)
    pads = sum((field_pads("down", 8, f) for f in factor), ())
    expected = upfirdn3d(F.pad(x, pads, mode), layer.kernel_x, 1, factor)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("dims", "layer"), BOTH)
def test_layers_keep_the_promises_of_the_op(dims, layer, mode, device):
    module = layer(padding_mode=mode).to(device)
    x = samples(dims, torch.bfloat16, device)
    with torch.autocast(device.type, torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, module(x))
    inner = channels_innermost(samples(dims, device=device)).requires_grad_()
    out = module(inner)
    assert is_channels_innermost(out)
    (gradient,) = torch.autograd.grad(out, inner, torch.randn_like(out))
    assert is_channels_innermost(gradient)
    for empty in (inner.detach()[:0], inner.detach()[:, :0]):
        out = module(empty.requires_grad_())
        assert out.shape[:2] == empty.shape[:2]
        out.sum().backward()


def test_signals_of_half_are_rounded_once(device):
    x = samples(1, torch.float16, device)
    for layer in LAYERS[1]:
        module = layer().to(device)
        assert torch.equal(module.half()(x), module(x.float()).half())


def test_the_resampling_of_an_alias_free_activation(device):
    """What audio's models write as padding and depthwise convolutions."""
    k, f = 12, 2
    taps = torch.tensor(filters.kaiser_lowpass(k, 0.5, 4.66), device=device)
    x = torch.randn(2, 5, 40, device=device)
    weight = taps.expand(5, 1, k)
    pad = k // f - 1
    left, right = pad * f + (k - f) // 2, pad * f + (k - f + 1) // 2
    wide = F.conv_transpose1d(F.pad(x, (pad, pad), "replicate"), f * weight, stride=f, groups=5)
    expected = wide[..., left:-right]
    up = UpFirDnUpsample1d(taps, f, "replicate").to(device)
    torch.testing.assert_close(up(x), expected)
    wide = F.pad(torch.sin(expected), (k // 2 - 1, k // 2), "replicate")
    expected = F.conv1d(wide, weight, stride=f, groups=5)
    down = UpFirDnDownsample1d(taps, f, "replicate").to(device)
    torch.testing.assert_close(down(torch.sin(up(x))), expected)


@pytest.mark.parametrize(("dims", "layer"), BOTH)
def test_the_kernel_survives_every_move(dims, layer, device):
    fresh = layer()
    assert [name for name, _ in fresh.named_buffers()] == [f"kernel_{a}" for a in "xyz"[:dims]]
    assert fresh.kernel.dim() == dims
    torch.testing.assert_close(float(fresh.kernel.sum()), float(np.prod(fresh.gain)))
    assert not fresh.state_dict()
    for moved in (
        layer().half(), layer().double().float(), layer().to(device).bfloat16(),
        layer().to("meta").to_empty(device=device), copy.deepcopy(layer()),
        pickle.loads(pickle.dumps(layer().half())),
    ):  # fmt: skip
        for ours, expected in zip(moved.buffers(), fresh.buffers(), strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours.cpu(), expected)
    assert all(buffer.dtype == torch.float64 for buffer in layer().double().buffers())
    x = samples(dims)
    assert torch.equal(pickle.loads(pickle.dumps(fresh))(x), fresh(x))


@pytest.mark.parametrize(("dims", "layer"), BOTH)
def test_checkpoints_with_filters(dims, layer):
    module, gain = layer(), float(np.prod(layer().gain))
    module.load_state_dict({"kernel": module.kernel}, strict=True)
    module.load_state_dict({"resample_filter": module.kernel / gain}, strict=True)
    module.load_state_dict({"resample_filter": module.kernel[None, None] / gain}, strict=True)
    module.load_state_dict({"resample_filter": torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8})
    with pytest.raises(RuntimeError, match="kernel must hold the taps of this layer"):
        module.load_state_dict({"kernel": module.kernel * 1.01})


def test_repr():
    assert repr(UpFirDnUpsample1d()) == "UpFirDnUpsample1d(resample_kernel=[1, 3, 3, 1], factor=2)"
    assert repr(UpFirDnDownsample3d((1, 2, 1), (2, 2, 1), "circular")) == (
        "UpFirDnDownsample3d(resample_kernel=[1, 2, 1], factor=(2, 2, 1), padding_mode='circular')"
    )
    assert repr(UpFirDnSmooth1d((1, 2, 1), 2, 1, 3)) == (
        "UpFirDnSmooth1d(resample_kernel=[1, 2, 1], upsample_factor=2, downsample_factor=1, "
        "kernel_size=3)"
    )


@pytest.mark.parametrize("dims", [1, 3])
def test_uneven_phases_warn_once(dims):
    up = LAYERS[dims][0]
    with pytest.warns(UserWarning, match="do not sum alike at factor 3") as caught:
        up((1, 5, 5, 1), 3)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        up((1, 5, 5, 1), 3)


@pytest.mark.parametrize(("dims", "layer"), BOTH)
def test_the_epilogue_is_for_images(dims, layer):
    assert not hasattr(layer(), "bias_act")
    assert layer.__name__ in resample_layers.__all__


# Errors

S, V, K = torch.ones(1, 2, 5), torch.ones(1, 2, 3, 4, 5), torch.ones(3)
CALLS = [
    (lambda: upfirdn1d([1.0], K), TypeError,
     "input must be a tensor [N, C, L], got [1.0] (list)"),
    (lambda: upfirdn1d(S.long(), K), TypeError,
     "input must be float16, bfloat16, float32 or float64, got torch.int64"),
    (lambda: upfirdn1d(V, K), ValueError,
     "input must have 3 dimensions [N, C, L], got 5: shape (1, 2, 3, 4, 5)"),
    (lambda: upfirdn3d(S, K), ValueError,
     "input must have 5 dimensions [N, C, D, H, W], got 3: shape (1, 2, 5)"),
    (lambda: upfirdn1d(S, [1.0, 3.0]), TypeError,
     "taps must be a tensor [taps], got [1.0, 3.0] (list)"),
    (lambda: upfirdn1d(S, (K, K)), TypeError,
     "taps must be a tensor [taps], got "
     "(tensor([1., 1., 1.]), tensor([1., 1., 1.])) (tuple)"),
    (lambda: upfirdn3d(V, "box"), TypeError,
     "taps must be a tensor [taps] or three of them (taps_x, taps_y, taps_z), got 'box' (str)"),
    (lambda: upfirdn3d(V, (K, K, 1)), TypeError,
     "taps must be a tensor [taps] or three of them (taps_x, taps_y, taps_z), got "
     "(tensor([1., 1., 1.]), tensor([1., 1., 1.]), 1) (tuple)"),
    (lambda: upfirdn3d(V, (K, K)), ValueError,
     "taps must be a tensor [taps] or three of them (taps_x, taps_y, taps_z), got 2 tensors"),
    (lambda: upfirdn3d(V, (K, K, K, K)), ValueError,
     "taps must be a tensor [taps] or three of them (taps_x, taps_y, taps_z), got 4 tensors"),
    (lambda: upfirdn1d(S, K[None]), ValueError,
     "taps must have 1 dimension [taps], got 2: shape (1, 3)"),
    (lambda: upfirdn1d(S, K[0]), ValueError,
     "taps must have 1 dimension [taps], got 0: shape ()"),
    (lambda: upfirdn3d(V, torch.ones(3, 3, 3)), ValueError,
     "taps must have 1 dimension [taps]: kernels that are not separable are for images, got 3: "
     "shape (3, 3, 3)"),
    (lambda: upfirdn3d(V, (K, K[None], K)), ValueError,
     "taps[1] must have 1 dimension [taps], got 2: shape (1, 3)"),
    (lambda: upfirdn1d(S, K.int()), TypeError,
     "taps must be float16, bfloat16, float32 or float64, got torch.int32"),
    (lambda: upfirdn1d(S, K[:0]), ValueError, "taps must have at least one tap, got shape (0,)"),
    (lambda: upfirdn3d(V, (K, K, K.to("meta"))), ValueError,
     "taps[2] must be on the device of input, got taps[2] on meta and input on cpu"),
    (lambda: upfirdn1d(S, K, up=0), ValueError, "up must be >= 1, got up=0"),
    (lambda: upfirdn1d(S, K, up=(2, 2)), ValueError,
     "up must be an int or 1 int (x,), got up=(2, 2)"),
    (lambda: upfirdn1d(S, K, down=1.5), TypeError,
     "down must be made of ints, got down=1.5 (float)"),
    (lambda: upfirdn3d(V, K, down=(1, 2, 0)), ValueError,
     "down must be >= 1 in all axes, got down=(1, 2, 0)"),
    (lambda: upfirdn3d(V, K, up=(2, 2)), ValueError,
     "up must be an int or 3 ints (x, y, z), got up=(2, 2)"),
    (lambda: upfirdn1d(S, K, pad=(1,)), ValueError,
     "pad must be an int or have 2 values (before, after), got 1: pad=(1,)"),
    (lambda: upfirdn1d(S, K, pad="same"), TypeError,
     "pad must be made of ints, got pad='same' (str)"),
    (lambda: upfirdn1d(S, K, pad=(1, 0.5)), TypeError,
     "pad must be made of ints, got pad=(1, 0.5) (tuple)"),
    (lambda: upfirdn3d(V, K, pad=(1, 1, 1, 1)), ValueError,
     "pad must be an int or have 2 values (before, after) for all axes, or 6 values "
     "(x0, x1, y0, y1, z0, z1), got 4: pad=(1, 1, 1, 1)"),
    (lambda: upfirdn3d(V, K, pad=True), TypeError,
     "pad must be made of ints, got pad=True (bool)"),
    (lambda: upfirdn1d(S, torch.ones(7), pad=(1, 0)), ValueError,
     "output must be at least 1 (length), got 0 from input 5, kernel 7, up=(1,), down=(1,), "
     "pad=(1, 0)"),
    (lambda: upfirdn3d(V, (K, K[:1], K), (1, 2, 3), 2, (0, 0, 0, 0, 0, -9)), ValueError,
     "output must be at least 1x1x1 (depth x height x width), got -1x4x2 from input 3x4x5, "
     "kernel 3x1x3, up=(1, 2, 3), down=(2, 2, 2), pad=(0, 0, 0, 0, 0, -9)"),
    # layers
    (lambda: UpFirDnUpsample1d([[1, 2], [2, 4]]), ValueError,
     "resample_kernel of a UpFirDnUpsample1d must be [taps], for its kernel is separable, "
     "got [kh, kw]: [[1, 2], [2, 4]]"),
    (lambda: UpFirDnDownsample3d(factor=(2, 2)), ValueError,
     "factor must be an int or 3 ints (x, y, z), got factor=(2, 2)"),
    (lambda: UpFirDnSmooth3d(upsample_factor=2, downsample_factor=2), ValueError,
     "only one of upsample_factor and downsample_factor may be above 1, got upsample_factor=2, "
     "downsample_factor=2"),
    (lambda: UpFirDnSmooth1d(padding_mode="same"), ValueError,
     "padding_mode must be one of zeros, reflect, replicate, circular, got 'same'"),
    (lambda: UpFirDnUpsample1d()(V), ValueError,
     "input must have 3 dimensions [N, C, L], got 5: shape (1, 2, 3, 4, 5)"),
    (lambda: UpFirDnUpsample3d(padding_mode="circular")(S), ValueError,
     "input must have 5 dimensions [N, C, D, H, W], got 3: shape (1, 2, 5)"),
    (lambda: UpFirDnSmooth1d([1] * 12, padding_mode="reflect")(S), ValueError,
     "padding_mode='reflect' needs an input of at least 7 (length), got 5"),
    (lambda: UpFirDnSmooth3d([1] * 8, padding_mode="circular")(V), ValueError,
     "padding_mode='circular' needs an input of at least 4x4x4 (depth x height x width), "
     "got 3x4x5"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), CALLS, ids=[c[2][:60] for c in CALLS])
def test_error(call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        call()
