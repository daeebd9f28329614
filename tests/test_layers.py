# SPDX-License-Identifier: BSD-3-Clause
"""The layers: sizes, numbers, padding modes, and a kernel that is right after every move."""

import copy
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resample_layers import (
    FilteredLeakyReLU,
    UpFirDnDownsample,
    UpFirDnSmooth,
    UpFirDnUpsample,
    filters,
    ops,
)
from resample_layers.compat import bigvgan

from . import oracle

TAPS = (1, 3, 3, 1)
LAYERS = (
    lambda: UpFirDnUpsample(),
    lambda: UpFirDnDownsample(),
    lambda: UpFirDnSmooth(upsample_factor=2, kernel_size=3),
    lambda: UpFirDnSmooth(downsample_factor=2, kernel_size=3),
    lambda: UpFirDnUpsample([[1, 2, 1], [2, 5, 2]], (2, 1)),
)
pytestmark = pytest.mark.filterwarnings("ignore:the phases of resample_kernel")


def field_pads(name, taps, factor, kernel_size=1):
    """The field's pads for square kernels (BasicSR's and rosinality's), as published facts."""
    if name == "up":
        return (taps - factor + 1) // 2 + factor - 1, (taps - factor) // 2
    if name == "down":
        return (taps - factor + 1) // 2, (taps - factor) // 2
    if name == "smooth up":
        p = (taps - factor) - (kernel_size - 1)
        return (p + 1) // 2 + factor - 1, p // 2 + 1
    p = (taps - factor) + (kernel_size - 1)
    return (p + 1) // 2, p // 2


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("taps", range(1, 9))
def test_upsample_and_downsample_give_the_field_s_numbers(taps, factor):
    values = torch.rand(taps, dtype=torch.float64) + 0.1
    kernel = torch.outer(values, values) / values.sum() ** 2
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    for given in (values.tolist(), kernel):
        up = UpFirDnUpsample(given, factor).double()(x)
        assert up.shape == (2, 3, 9 * factor, 11 * factor)
        pads = field_pads("up", taps, factor) * 2
        oracle.assert_matches(up, x, kernel * factor**2, (factor,) * 2, (1, 1), pads)
        down = UpFirDnDownsample(given, factor).double()(x)
        assert down.shape == (2, 3, 9 // factor, 11 // factor)
        pads = field_pads("down", taps, factor) * 2
        oracle.assert_matches(down, x, kernel, (1, 1), (factor,) * 2, pads)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("taps", [1, 3, 4, 6])
def test_smooth_gives_basicsr_s_numbers_at_factor_2(taps, kernel_size):
    values = torch.rand(taps, dtype=torch.float64) + 0.1
    kernel = torch.outer(values, values) / values.sum() ** 2
    x = torch.randn(1, 2, 12, 13, dtype=torch.float64)
    up = UpFirDnSmooth(values, upsample_factor=2, kernel_size=kernel_size).double()(x)
    pads = field_pads("smooth up", taps, 2, kernel_size) * 2
    oracle.assert_matches(up, x, 4 * kernel, (1, 1), (1, 1), pads)
    down = UpFirDnSmooth(values, downsample_factor=2, kernel_size=kernel_size).double()(x)
    pads = field_pads("smooth down", taps, 2, kernel_size) * 2
    oracle.assert_matches(down, x, kernel, (1, 1), (1, 1), pads)


@pytest.mark.parametrize("factor", [2, 3, 4, (2, 3), (2, 1), (1, 3), (1, 2), (3, 1)])
@pytest.mark.parametrize("kernel_size", [1, 3, 4, (3, 2)])
@pytest.mark.parametrize("taps", [4, 5])
def test_smooth_beside_a_convolution_restores_the_size(taps, kernel_size, factor):
    fx, fy = factor if isinstance(factor, tuple) else (factor, factor)
    kx, ky = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    x = torch.randn(1, 2, 12, 14)
    weight = torch.randn(2, 2, ky, kx)
    smooth = UpFirDnSmooth([1] * taps, upsample_factor=factor, kernel_size=kernel_size)
    up = smooth(F.conv_transpose2d(x, weight, stride=(fy, fx)))
    assert up.shape == (1, 2, 12 * fy, 14 * fx)
    smooth = UpFirDnSmooth([1] * taps, downsample_factor=factor, kernel_size=kernel_size)
    down = F.conv2d(smooth(x), weight, stride=(fy, fx))
    assert down.shape == (1, 2, 12 // fy, 14 // fx)
    same = F.conv2d(UpFirDnSmooth([1] * taps, kernel_size=kernel_size)(x), weight)
    assert same.shape == x.shape


def test_smooth_alone_smooths_at_the_same_size():
    x = torch.randn(1, 2, 7, 8)
    kernel = filters.make_resample_kernel(TAPS)
    oracle.assert_matches(UpFirDnSmooth(TAPS)(x), x, kernel, (1, 1), (1, 1), (2, 1, 2, 1))


@pytest.mark.parametrize("factor", [(3, 2), (2, 3), (3, 1), (1, 4)])
@pytest.mark.parametrize("size", [(3, 6), (5, 6), (6, 3), (4, 4)])
def test_axes_may_differ(size, factor):
    kernel = torch.rand(size) + 0.1
    (kh, kw), (fx, fy) = size, factor
    x = torch.randn(1, 2, 8, 12)
    up = UpFirDnUpsample(kernel, factor)(x)
    assert up.shape == (1, 2, 8 * fy, 12 * fx)
    pads = (*field_pads("up", kw, fx), *field_pads("up", kh, fy))
    oracle.assert_matches(up, x, kernel / kernel.sum() * (fx * fy), factor, (1, 1), pads)
    down = UpFirDnDownsample(kernel, factor)(x)
    assert down.shape == (1, 2, 8 // fy, 12 // fx)
    pads = (*field_pads("down", kw, fx), *field_pads("down", kh, fy))
    oracle.assert_matches(down, x, kernel / kernel.sum(), (1, 1), factor, pads)


def test_separable_taps_take_the_gain_of_each_axis():
    x = torch.randn(1, 2, 8, 12)
    layer = UpFirDnUpsample(TAPS, (3, 1))
    assert float(layer.kernel_x.sum()) == pytest.approx(3)
    assert float(layer.kernel_y.sum()) == pytest.approx(1)
    pads = (*field_pads("up", 4, 3), *field_pads("up", 4, 1))
    kernel = filters.make_resample_kernel(TAPS) * 3
    oracle.assert_matches(layer(x), x, kernel, (3, 1), (1, 1), pads)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("make", LAYERS[:4])
def test_padding_modes_equal_padding_by_hand(make, mode):
    """Pad the image far with torch's mode, apply the zero-padded layer, cut the middle out."""
    plain = make()
    layer = make()
    layer.padding_mode = mode
    x = torch.randn(2, 3, 12, 16)
    wide = plain(F.pad(x, (8, 8, 8, 8), mode=mode))
    ours = layer(x)
    assert ours.shape == plain(x).shape
    scale = ours.shape[-1] / x.shape[-1] if not isinstance(plain, UpFirDnSmooth) else 1
    edge = round(8 * scale)
    middle = wide[:, :, edge : edge + ours.shape[2], edge : edge + ours.shape[3]]
    torch.testing.assert_close(ours, middle)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_do_not_darken_the_border(mode):
    x = torch.ones(1, 1, 8, 9)
    assert UpFirDnUpsample(TAPS)(x).min() < 0.6  # zeros do
    for layer in (UpFirDnUpsample, UpFirDnDownsample, UpFirDnSmooth):
        out = layer(TAPS, padding_mode=mode)(x)
        torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("make", LAYERS[:4])
def test_padding_modes_keep_the_promises_of_the_op(make, mode, device):
    """Dtype under autocast, memory format forward and backward, empty batches and channels."""
    layer = make().to(device)
    layer.padding_mode = mode
    x = torch.randn(2, 3, 8, 10, device=device)
    for mode_dtype, dtype in itertools.product((torch.bfloat16, torch.float16), repeat=2):
        with torch.autocast(device.type, mode_dtype):
            out = layer(x.to(dtype))
        assert out.dtype == dtype
        assert torch.equal(out, layer(x.to(dtype)))
    nhwc = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = layer(nhwc)
    assert out.is_contiguous(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(out, nhwc, torch.randn_like(out))
    assert grad.is_contiguous(memory_format=torch.channels_last)
    for empty in (x[:0], x[:, :0]):
        out = layer(empty.requires_grad_())
        assert out.shape[:2] == empty.shape[:2]
        out.sum().backward()


def test_padding_modes_differentiate_twice(device):
    for mode in ("reflect", "replicate", "circular"):
        layer = UpFirDnUpsample(padding_mode=mode).to(device).double()
        x = torch.randn(1, 1, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
        assert torch.autograd.gradcheck(layer, (x,))
        assert torch.autograd.gradgradcheck(layer, (x,))


# The kernel is right, of full precision, wherever the module goes


def kernel_of(layer):
    return [buffer for _, buffer in sorted(layer.named_buffers())]


def assert_fresh(layer, make, dtype=torch.float32, device="cpu"):
    """The kernel equals that of a new layer, bit for bit."""
    fresh = [buffer.to(dtype) for buffer in kernel_of(make().to(dtype))]
    for ours, expected in zip(kernel_of(layer), fresh, strict=True):
        assert ours.dtype == dtype
        assert ours.device.type == device
        assert torch.equal(ours.cpu(), expected.cpu())


@pytest.mark.parametrize("make", LAYERS)
def test_the_kernel_survives_every_move(make, device):
    assert_fresh(make().half(), make)
    assert_fresh(make().to(torch.bfloat16), make)
    assert_fresh(make().double(), make, torch.float64)
    assert_fresh(make().double().half(), make)
    assert_fresh(make().half().double(), make, torch.float64)
    assert_fresh(make().to(device), make, device=device.type)
    assert_fresh(nn.Sequential(make()).to(device).half()[0], make, device=device.type)
    assert_fresh(make().to("meta").to_empty(device=device), make, device=device.type)
    with torch.device("meta"):
        layer = make()
    assert all(buffer.is_meta for buffer in kernel_of(layer))
    assert_fresh(layer.to_empty(device=device), make, device=device.type)
    assert_fresh(copy.deepcopy(make().half()), make)
    assert_fresh(pickle.loads(pickle.dumps(make())), make)
    with torch.device(device):
        assert_fresh(make(), make, device=device.type)


def test_layers_made_under_fake_tensors():
    with torch._subclasses.FakeTensorMode():
        out = UpFirDnUpsample()(torch.empty(1, 2, 5, 6))
    assert out.shape == (1, 2, 10, 12)


def test_fake_tensors_load_as_the_filters_of_checkpoints():
    """They have no values to compare: their shapes must be right."""
    mode = torch._subclasses.FakeTensorMode()
    with mode:
        for kernel in (torch.empty(4), torch.empty(1, 1, 4, 4), torch.empty(4, 4).half()):
            UpFirDnDownsample().load_state_dict({"kernel": kernel})
        sentence = r"kernel must hold the taps of this layer, shape \(4, 4\), got shape \(3, 4\)"
        with pytest.raises(RuntimeError, match=sentence):
            UpFirDnDownsample().load_state_dict({"kernel": torch.empty(3, 4)})
    UpFirDnDownsample().load_state_dict({"kernel": mode.from_tensor(torch.ones(4, 4))})
    real, filter = {"kernel": torch.ones(4, 4) / 16}, {"filter": torch.ones(1, 1, 12).half()}
    with mode:  # torch refuses real tensors beside fake ones
        with pytest.raises(
            RuntimeError, match=r"kernel must hold taps, got (.|\n)*convert all Tens"
        ):
            UpFirDnDownsample().load_state_dict(real)
        with pytest.raises(
            RuntimeError, match=r'the parameter named "filter"(.|\n)*convert all Tens'
        ):
            bigvgan.UpSample1d().load_state_dict(filter)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        UpFirDnDownsample().load_state_dict(real)
        bigvgan.UpSample1d().load_state_dict(filter)


def test_the_filters_of_checkpoints_are_compared_under_a_device_too():
    """``torch.device("meta")`` as a context took their values away."""
    state = {"kernel": UpFirDnUpsample().kernel}
    with torch.device("meta"):
        layer = UpFirDnUpsample()
        layer.load_state_dict(state)
        with pytest.raises(RuntimeError, match="kernel must hold the taps of this layer"):
            layer.load_state_dict({"kernel": state["kernel"] * 2})


TRAINED = [
    (lambda: UpFirDnUpsample(), "kernel_x"),
    (lambda: UpFirDnDownsample([[1, 2, 1], [2, 5, 2]]), "kernel_2d"),
    (lambda: FilteredLeakyReLU(2, bias=False), "down_kernel"),
    (lambda: bigvgan.UpSample1d(), "filter"),
]


@pytest.mark.parametrize(("make", "name"), TRAINED, ids=[name for _, name in TRAINED])
def test_a_buffer_that_the_user_trains_is_moved_as_a_parameter(make, name, device):
    """The move raised torch's error, or wrote the first taps over those that were trained."""
    moves = {
        torch.float32: lambda m: m.to(device).to("cpu").to(device),
        torch.float64: lambda m: m.to(device).double(),
        torch.float16: lambda m: m.to(device).half(),
    }
    for dtype, move in moves.items():
        layer = make()
        getattr(layer, name).requires_grad_().data.mul_(2)
        trained = getattr(layer, name).detach().to(dtype)
        fresh = {key: b for key, b in move(make()).named_buffers() if key != name}
        layer = move(nn.Sequential(layer))[0]
        taps = getattr(layer, name)
        assert taps.is_leaf
        assert taps.requires_grad
        assert taps.device.type == device.type
        assert torch.equal(taps.detach().cpu(), trained)
        for key, buffer in fresh.items():
            assert torch.equal(getattr(layer, key), buffer)
        size = (1, 2, 9) if name == "filter" else (1, 2, 9, 9)
        layer(torch.ones(size, dtype=dtype, device=device)).sum().backward()
        assert taps.grad.abs().sum() > 0


def test_a_buffer_that_is_computed_keeps_its_graph():
    layer, leaf = UpFirDnUpsample(), torch.rand(4, requires_grad=True)
    layer.kernel_x = leaf * 2
    layer.double()(torch.ones(1, 1, 5, 5, dtype=torch.float64)).sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_shared_memory_stays_shared():
    layer = UpFirDnUpsample().share_memory()
    assert layer.kernel_x.is_shared()
    assert_fresh(layer, UpFirDnUpsample)


def test_a_kernel_that_learns_is_left_alone():
    layer = UpFirDnUpsample()
    taps = layer.kernel_x * 2
    del layer.kernel_x
    layer.kernel_x = nn.Parameter(taps)
    layer.double()
    torch.testing.assert_close(layer.kernel_x.detach(), taps.double())


def test_full_precision_in_float64():
    layer = UpFirDnUpsample([1, 1, 1], 1).double()
    assert layer.kernel_x.tolist() == [1 / 3] * 3


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_models_keep_dtype_and_precision(make, dtype, device):
    layer = make().to(device)
    x = torch.randn(1, 2, 8, 8, device=device).to(dtype)
    expected = layer(x.float()).to(dtype)
    out = layer.to(dtype)(x)
    assert out.dtype == dtype
    assert torch.equal(out, expected)


@pytest.mark.parametrize("make", LAYERS)
def test_kernel_property(make):
    layer = make()
    assert layer.kernel.dim() == 2
    gain = layer.gain[0] * layer.gain[1]
    torch.testing.assert_close(layer.kernel.sum(), torch.tensor(float(gain)))


# 2-D kernels that are outer products


def outer(taps_x, taps_y, dtype=torch.float64):
    """As vendored code makes it: the product of two lists, divided by its sum."""
    x, y = (torch.tensor(taps, dtype=dtype) for taps in (taps_x, taps_y))
    kernel = torch.outer(y, x)
    return kernel / kernel.sum()


LANCZOS = filters.NAMED_TAPS["lanczos3"]
ODD = [0.3, 1.1, -0.2, 0.7, 0.1]
RANK_ONE = {
    "StyleGAN2's": filters.make_resample_kernel(TAPS),
    "whole numbers": [[1, 2, 1], [3, 6, 3]],
    "float32": outer(LANCZOS, LANCZOS, torch.float32),
    "float64": outer(LANCZOS, ODD),
    "wide": outer(ODD, [1.0, 5.0], torch.float32),
    "a Gaussian": outer(*[[math.exp(-((i - 4) ** 2) / 5) for i in range(9)]] * 2),
    "NumPy": outer(ODD, TAPS).numpy() * 7,
}
ROUNDED = ("float32", "wide")  # which is seen in float64
RANK_TWO = {
    "two products": [[1, 2], [3, 4]],
    "one tap off by 1e-5": outer(TAPS, TAPS) + F.pad(torch.tensor([[1e-6]]), (1, 2, 2, 1)),
    "bfloat16": outer(LANCZOS, LANCZOS, torch.float32).bfloat16(),
    "a disc": [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
    "one row": [[1, 3, 3, 1]],  # one pass as it is
    "one column": [[1], [2], [1]],
}


def kinds_of(kernel):
    return (
        lambda: UpFirDnUpsample(kernel, (2, 3)),
        lambda: UpFirDnDownsample(kernel, 2, "reflect"),
        lambda: UpFirDnSmooth(kernel, upsample_factor=2, kernel_size=3),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*RANK_ONE, *RANK_TWO])
def test_outer_products_are_filtered_by_axis(name, dtype, device):
    """The values are the 2-D kernel's, whatever is found; and it is found, where it is one."""
    kernel = {**RANK_ONE, **RANK_TWO}[name]
    found = name in RANK_ONE and not (dtype == torch.float64 and name in ROUNDED)
    given = torch.as_tensor(kernel).double()
    given = given / given.sum()
    x = torch.randn(1, 2, 8, 9, dtype=dtype, device=device)
    for make in kinds_of(kernel):
        layer = make().to(device, dtype)
        assert layer.separable == found
        names = [name for name, _ in layer.named_buffers()]
        assert names == (["kernel_x", "kernel_y"] if found else ["kernel_2d"])
        nodes = torch.fx.symbolic_trace(layer).graph.nodes
        assert [str(node.target) for node in nodes if node.op == "get_attr"] == names
        assert layer.taps == filters.normalise_taps("k", kernel)
        expected = given * layer.gain[0] * layer.gain[1]
        eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
        assert layer.kernel.shape == given.shape
        assert (layer.kernel.cpu() - expected).abs().sum() <= 8 * eps * expected.abs().sum()
        tolerance = 20 * oracle.TOLERANCE[dtype]
        if make().padding_mode == "zeros":
            whole = ops.upfirdn2d(x.double(), expected.to(device), layer.up, layer.down, layer.pad)
            torch.testing.assert_close(layer(x).double(), whole, rtol=tolerance, atol=tolerance)
        bias = torch.randn(2, dtype=dtype, device=device)
        plain = F.leaky_relu(layer(x.double()).double() + bias[:, None, None], 0.2) * 2**0.5
        torch.testing.assert_close(
            layer.bias_act(x, bias).double(), plain, rtol=tolerance, atol=tolerance
        )


def test_a_kernel_rounded_to_float32_is_an_outer_product_in_float32_alone():
    kernel = outer(LANCZOS, ODD, torch.float32)
    layer = UpFirDnUpsample(kernel)
    fresh = [buffer.clone() for buffer in kernel_of(layer)]
    x = torch.randn(1, 1, 9, 8, dtype=torch.float64)
    given = kernel.double() / kernel.double().sum() * 4
    for _ in range(2):  # there and back
        for moved in (copy.deepcopy(layer.double()), pickle.loads(pickle.dumps(layer))):
            assert not moved.separable
            assert moved.kernel.dtype == torch.float64
            expected = ops.upfirdn2d(x, given, moved.up, moved.down, moved.pad)
            torch.testing.assert_close(moved(x), expected, rtol=1e-13, atol=1e-13)
            assert not moved.state_dict()
        layer.half().float()
        assert layer.separable
        assert all(torch.equal(a, b) for a, b in zip(kernel_of(layer), fresh, strict=True))
        assert not layer.state_dict()
    with torch.device("meta"):
        empty = UpFirDnUpsample(kernel).double()
    empty = empty.to_empty(device="cpu")
    assert torch.equal(empty(x), layer.double()(x))
    learning = UpFirDnUpsample(kernel)
    taps = learning.kernel_x * 2
    del learning.kernel_x
    learning.kernel_x = nn.Parameter(taps)
    learning.double()  # half of the filter is somebody else's: its form stays
    assert learning.separable
    torch.testing.assert_close(learning.kernel_x.detach(), taps.double())
    assert learning.kernel_y.dtype == torch.float64


@pytest.mark.parametrize("kernel", RANK_ONE.values(), ids=RANK_ONE)
def test_stored_kernels_of_outer_products_load(kernel):
    """The stored kernel is held against what the user gave, not against the taps of each axis."""
    given = torch.as_tensor(kernel).double()
    stored = given / given.sum() * 4
    for layer in (UpFirDnUpsample(kernel), UpFirDnUpsample(kernel).double()):
        layer.load_state_dict({"kernel": stored.float()}, strict=True)
        layer.load_state_dict({"kernel": layer.kernel}, strict=True)
        layer.load_state_dict({"resample_filter": stored / 4}, strict=True)
        with pytest.raises(RuntimeError, match="kernel must hold the taps of this layer"):
            layer.load_state_dict({"kernel": stored.T.flip(0) * 1.001})


# Checkpoints


@pytest.mark.parametrize("make", LAYERS)
def test_nothing_is_saved(make):
    assert not make().state_dict()


@pytest.mark.parametrize("make", LAYERS)
def test_checkpoints_with_and_without_filters_load_strictly(make):
    layer = nn.Sequential(make())
    kernel = layer[0].kernel
    gain = layer[0].gain[0] * layer[0].gain[1]
    layer.load_state_dict({}, strict=True)
    layer.load_state_dict({"0.kernel": kernel}, strict=True)  # rosinality: gain folded in
    layer.load_state_dict({"0.resample_filter": kernel / gain}, strict=True)  # NVIDIA: unit sum
    layer.load_state_dict({"0.resample_filter": (kernel / gain)[None, None]}, strict=True)
    stored = {"0.kernel": kernel}
    layer.load_state_dict(stored)
    assert list(stored) == ["0.kernel"]  # the user's dict is left alone
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*0\.weight"):
        layer.load_state_dict({"0.weight": kernel})


def test_stored_filters_of_other_dtypes_and_ranks_load():
    layer = UpFirDnDownsample(filters.NAMED_TAPS["lanczos3"])
    layer.load_state_dict({"kernel": layer.kernel.bfloat16()})
    layer.load_state_dict({"resample_filter": layer.kernel_x})  # NVIDIA: 1-D from 8 taps on
    with pytest.raises(RuntimeError, match="kernel must hold the taps of this layer"):
        layer.load_state_dict({"kernel": layer.kernel * 1.001})
    with pytest.raises(RuntimeError, match="kernel must hold taps, got 'x'"):
        layer.load_state_dict({"kernel": "x"})
    with pytest.raises(RuntimeError, match="kernel must hold taps, got tensor"):
        layer.load_state_dict({"kernel": layer.kernel.to("meta")}, assign=True)


@pytest.mark.parametrize("make", LAYERS)
def test_stored_taps_that_differ_raise(make):
    layer = nn.Sequential(make())
    kernel = layer[0].kernel
    changed = kernel.clone()
    changed[0, 0] += 0.01
    for stored in (changed, kernel * 4, kernel[1:], torch.ones(1)):
        with pytest.raises(RuntimeError, match=r"0\.kernel must hold the taps of this layer, \[\["):
            layer.load_state_dict({"0.kernel": stored})
    with pytest.raises(RuntimeError, match=r"0\.resample_filter must hold the taps of this layer"):
        layer.load_state_dict({"0.resample_filter": changed})


# What people see


def test_repr():
    assert repr(UpFirDnUpsample()) == "UpFirDnUpsample(resample_kernel=[1, 3, 3, 1], factor=2)"
    assert repr(UpFirDnDownsample([[1, 2], [2, 4]], (2, 1), "reflect")) == (
        "UpFirDnDownsample(resample_kernel=[[1, 2], [2, 4]], factor=(2, 1), padding_mode='reflect')"
    )
    assert repr(UpFirDnSmooth((1, 2, 1), 2, 1, 3)) == (
        "UpFirDnSmooth(resample_kernel=[1, 2, 1], upsample_factor=2, downsample_factor=1, "
        "kernel_size=3)"
    )


def test_layers_in_a_sequential_train(device):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), UpFirDnDownsample(), nn.ReLU(), UpFirDnUpsample(),
        nn.Conv2d(4, 3, 1),
    ).to(device)  # fmt: skip
    x = torch.randn(2, 3, 8, 8, device=device)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(40):
        loss = F.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert len(list(model.parameters())) == 4  # filters are not learned


def test_fused_leaky_relu(device):
    x = torch.randn(2, 3, 4, 5, device=device)
    bias = torch.randn(3, device=device)
    expected = F.leaky_relu(x + bias.reshape(1, 3, 1, 1), 0.3) * 1.7
    torch.testing.assert_close(ops.fused_leaky_relu(x, bias, 0.3, 1.7), expected)
    torch.testing.assert_close(ops.fused_leaky_relu(x), F.leaky_relu(x, 0.2) * 2**0.5)
    layer = ops.FusedLeakyReLU(3).to(device)
    with torch.no_grad():
        layer.bias.copy_(bias)
    half = layer(x.half())
    assert half.dtype == torch.float16  # the bias follows the input
    torch.testing.assert_close(
        half, F.leaky_relu(x.half() + bias.half()[:, None, None], 0.2) * 2**0.5
    )
    torch.testing.assert_close(layer(x[:, :, 0, 0]), ops.fused_leaky_relu(x, bias)[:, :, 0, 0])
    torch.testing.assert_close(ops.FusedLeakyReLU(3, bias=False)(x), F.leaky_relu(x, 0.2) * 2**0.5)
    assert "channel=3" in repr(layer)
    assert ops.FusedLeakyReLU(0).bias.shape == (0,)
