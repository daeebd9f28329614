# SPDX-License-Identifier: BSD-3-Clause
"""The alias-free activations as layers: filters, places, numbers, and buffers after every move."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn

from resample_layers import (
    FilteredLeakyReLU,
    FilteredSnake,
    FilteredSnakeBeta,
    filters,
    geometry,
)

LAYERS = (
    lambda: FilteredLeakyReLU(3),
    lambda: FilteredLeakyReLU(3, up=4, radial=True, clamp=1.0),
    lambda: FilteredLeakyReLU(3, up=1, down=3, bias=False, negative_slope=0.0),
    lambda: FilteredSnake(3),
    lambda: FilteredSnake(3, 0.5, log_scale=True, up=3, down=1, padding_mode="zeros"),
    lambda: FilteredSnakeBeta(3, 2.0, log_scale=True),
)
SIGNAL, IMAGE = (2, 3, 11), (2, 3, 4, 6)


def input_of(layer, dtype=torch.float64, device="cpu"):
    shape = IMAGE if isinstance(layer, FilteredLeakyReLU) else SIGNAL
    return torch.randn(shape, dtype=dtype, device=device)


def learned(layer):
    """A layer in which no parameter stands where it started."""
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.rand_like(p) - 0.3)
    return layer


# Values


def resampled(x, kernel, up, down, pad):
    """Zeros inserted, pads or crops, scipy's convolution, every ``down``-th sample."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, h * up[1], w * up[0]))
    y[:, :, :: up[1], :: up[0]] = x
    more = [max(0, side) for side in pad]
    y = np.pad(y, ((0, 0), (0, 0), more[2:], more[:2]))
    x0, x1, y0, y1 = (max(0, -side) for side in pad)
    y = y[:, :, y0 : y.shape[2] - y1, x0 : y.shape[3] - x1]
    kernel = np.asarray(kernel)[None, None]
    return scipy.signal.fftconvolve(y, kernel, "valid")[:, :, :: down[1], :: down[0]]


def leaky_relu_formula(layer, x, up_taps, down_kernel):
    """StyleGAN3's steps in NumPy, with pads on the first filter alone."""
    b = 0 if layer.bias is None else layer.bias.detach().double().numpy()[:, None, None]
    up, down = (layer.up,) * 2, (layer.down,) * 2
    y = x.numpy() + b
    y = resampled(y, np.outer(up_taps, up_taps) * layer.up**2, up, (1, 1), layer.pad)
    y = np.where(y > 0, y, y * layer.negative_slope) * layer.gain
    y = y if layer.clamp is None else np.clip(y, -layer.clamp, layer.clamp)
    return torch.from_numpy(resampled(y, down_kernel, (1, 1), down, (0, 0, 0, 0)))


@pytest.mark.parametrize(("up", "down"), [(2, 2), (4, 2), (2, 4), (1, 2), (2, 1), (3, 3)])
@pytest.mark.parametrize("radial", [False, True])
def test_leaky_relu(up, down, radial):
    """The default filters are StyleGAN3's critically sampled ones."""
    layer = FilteredLeakyReLU(3, up, down, radial=radial, gain=1.3, clamp=0.9, negative_slope=0.1)
    learned(layer.double())
    half = math.sqrt(2) - 1
    up_taps = filters.design_lowpass(6 * up, 0.5, half, up) if up > 1 else [1.0]
    design = filters.design_radial_lowpass if radial else filters.design_lowpass
    cut = 0.5 * up / down
    down_kernel = design(6 * down, cut, 2 * half * cut, up) if down > 1 else [[1.0]]
    down_kernel = np.array(down_kernel)
    if down_kernel.ndim == 1:
        down_kernel = np.outer(down_kernel, down_kernel)
    x = input_of(layer)
    out = layer(x)
    assert out.shape == (2, 3, 4 * up // down, 6 * up // down)
    torch.testing.assert_close(out, leaky_relu_formula(layer, x, up_taps, down_kernel))


def test_a_layer_of_stylegan3():
    """Its frequencies, its size and its padding: a margin is cropped, and rate 16 becomes 32."""
    in_size, out_size, kernel, up, down = 20, 30, 3, 4, 2
    total = (out_size - 1) * down + 1 - (in_size + kernel - 1) * up + 6 * up + 6 * down - 2
    before = (total + up) // 2
    pad = (before, total - before)
    layer = FilteredLeakyReLU(
        3, up, down, sampling_rate=16, in_cutoff=4.0, in_half_width=4.8, out_cutoff=6.0,
        out_half_width=10.0, radial=True, clamp=256.0, pad=pad,
    )  # fmt: skip
    assert layer.up_taps == filters.design_lowpass(24, 4.0, 9.6, 64)
    assert layer.down_taps == filters.design_radial_lowpass(12, 6.0, 20.0, 64)
    learned(layer.double())
    x = torch.randn(1, 3, in_size + kernel - 1, in_size + kernel - 1, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (1, 3, out_size, out_size)
    expected = leaky_relu_formula(layer, x, layer.up_taps, np.array(layer.down_taps))
    torch.testing.assert_close(out, expected)


def snake_formula(layer, x, up_taps, down_taps, pad, down_pad, alpha, beta):
    """BigVGAN's steps in NumPy: both signals are continued by their end samples, or by zeros."""
    mode = {"replicate": "edge", "zeros": "constant"}[layer.padding_mode]

    def continued(y, sides):
        return np.pad(y, ((0, 0), (0, 0), sides), mode)

    far = 40
    y = continued(x.numpy(), (far, far))[:, :, None]
    pads = (pad[0] - far * layer.up, pad[1] - far * layer.up, 0, 0)
    y = resampled(y, np.array([up_taps]) * layer.up, (layer.up, 1), (1, 1), pads)[:, :, 0]
    a, b = (np.asarray(v, np.float64)[:, None] for v in (alpha, beta))
    y = y + np.sin(a * y) ** 2 / (b + 1e-9)
    y = continued(y, (far, far))[:, :, None]
    pads = (down_pad[0] - far, down_pad[1] - far, 0, 0)
    y = resampled(y, np.array([down_taps]), (1, 1), (layer.down, 1), pads)
    return torch.from_numpy(y[:, :, 0])


@pytest.mark.parametrize("mode", ["replicate", "zeros"])
@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("kind", [FilteredSnake, FilteredSnakeBeta])
@pytest.mark.parametrize(("up", "down"), [(2, 2), (3, 2), (1, 2), (4, 4), (2, 1)])
def test_snake(up, down, kind, log_scale, mode):
    layer = learned(kind(3, 1.5, log_scale, up, down, padding_mode=mode).double())
    alpha = layer.alpha.detach()
    beta = layer.beta.detach() if kind is FilteredSnakeBeta else alpha
    if log_scale:
        alpha, beta = alpha.exp(), beta.exp()
    up_taps, down_taps = (
        filters.kaiser_sinc(0.5 / f, 0.6 / f, 6 * f) if f > 1 else (1.0,) for f in (up, down)
    )
    # In the middle of the input samples and of the output samples, whatever the factors are
    pad = (len(up_taps) - up + 1) // 2 + up - 1, (len(up_taps) - up) // 2
    before = (len(down_taps) - down + 1) // 2
    down_pad = before, len(down_taps) - 1 - before
    x = input_of(layer)
    out = layer(x)
    assert out.shape == (2, 3, math.ceil(11 * up / down))
    expected = snake_formula(layer, x, up_taps, down_taps, pad, down_pad, alpha, beta)
    torch.testing.assert_close(out, expected)


def test_at_ratio_2_it_is_bigvgan_s():
    layer = FilteredSnake(3)
    assert layer.up_taps == layer.down_taps == filters.kaiser_sinc(0.25, 0.3, 12)
    assert (layer.pad, layer.down_pad) == ((6, 5), (5, 6))


@pytest.mark.parametrize(("up", "down"), [(2, 2), (4, 4), (2, 1), (1, 2), (4, 2)])
def test_images_stay_in_place(up, down):
    """A linear layer keeps a ramp: sample n of the output lies at its own place of the input."""
    layer = FilteredLeakyReLU(1, up, down, negative_slope=1.0, gain=1.0).double()
    x = torch.arange(64.0, dtype=torch.float64).expand(1, 1, 64, 64)
    out = layer(x)[0, 0, 32 * up // down]
    place = (torch.arange(64 * up // down, dtype=torch.float64) + 0.5) * down / up - 0.5
    middle = slice(24 * up // down, 40 * up // down)
    torch.testing.assert_close(out[middle], place[middle], rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["leaky ReLU", "Snake"])
def test_they_do_not_alias(name):
    """A plain activation folds the double of a tone, which lies above the band, back into it."""
    n = torch.arange(500.0, dtype=torch.float64)
    frequency = {"leaky ReLU": 0.3, "Snake": 0.4}[name]
    tone = (2 * math.pi * frequency * n + 0.3).cos()
    if name == "leaky ReLU":
        plain = tone.clamp(min=0)
        band = {"in_cutoff": 0.4, "in_half_width": 0.1, "out_cutoff": 0.4, "out_half_width": 0.1}
        layer = FilteredLeakyReLU(
            1, 4, 4, filter_size=12, bias=False, negative_slope=0.0, gain=1.0, **band
        )
        out = layer.double()(tone.expand(1, 1, 30, 500))[0, 0, 15]
    else:
        plain = tone + (2 * tone).sin() ** 2 / 2
        layer = FilteredSnake(1, 2.0, up=4, down=4, up_numtaps=96, down_numtaps=96)
        out = layer.double()(tone[None, None])[0, 0]
    middle = slice(50, 450)
    window = torch.hann_window(400, dtype=torch.float64)
    probe = torch.polar(window, -2 * math.pi * (1 - 2 * frequency) * n[middle])
    folded, left = ((y[middle] * probe).sum().abs().item() for y in (plain, out))
    assert folded > 10
    assert left < 0.05 * folded


# The contract of the ops


@pytest.mark.parametrize("make", LAYERS)
def test_gradients(make):
    layer = learned(make().double())
    parameters = dict(layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    x = input_of(layer)[:1, ..., :3].requires_grad_()
    assert torch.autograd.gradcheck(call, (x, *parameters.values()))
    out = layer(x).square().sum()
    grads = torch.autograd.grad(out, [x, *parameters.values()])
    assert all(g.any() for g in grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", LAYERS)
def test_half_models_keep_dtype_and_precision(make, dtype, device):
    """They compute with the filters of float32, and round once, at the end."""
    layer = learned(make()).to(device, dtype)
    x = input_of(layer, dtype, device)
    out = layer(x)
    assert out.dtype == dtype
    wide = copy.deepcopy(layer).float()
    torch.testing.assert_close(out, wide(x.float()).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("make", LAYERS)
def test_compiles_in_one_graph(make):
    layer = learned(make())
    x = input_of(layer, torch.float32).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


def test_signals_of_no_sample_are_told_and_empty_batches_are_not():
    for layer, size in ((FilteredSnake(3), (4,)), (FilteredLeakyReLU(3), (4, 4))):
        with pytest.raises(ValueError, match="must be at least"):
            layer(torch.ones(1, 3, *size[:-1], 0))
        assert layer(torch.ones(0, 3, *size)).shape == (0, 3, *size)


# The filters are right, of full precision, wherever the module goes


def assert_fresh(layer, make, dtype=torch.float32, device="cpu"):
    """The buffers equal those of a new layer, bit for bit."""
    fresh = dict(make().to(dtype).named_buffers())
    assert dict(layer.named_buffers()).keys() == fresh.keys()
    for name, buffer in layer.named_buffers():
        assert (buffer.dtype, buffer.device.type) == (dtype, device)
        assert torch.equal(buffer.cpu(), fresh[name])


@pytest.mark.parametrize("make", LAYERS)
def test_the_filters_survive_every_move(make, device):
    assert_fresh(make().half(), make)
    assert_fresh(make().double(), make, torch.float64)
    assert_fresh(make().half().double(), make, torch.float64)
    assert_fresh(nn.Sequential(make()).to(device).half()[0], make, device=device.type)
    assert_fresh(make().to("meta").to_empty(device=device), make, device=device.type)
    assert_fresh(copy.deepcopy(make().half()), make)
    assert_fresh(pickle.loads(pickle.dumps(make())), make)
    with torch.device("meta"):
        layer = make()
    assert all(buffer.is_meta for buffer in layer.buffers())
    assert_fresh(layer.to_empty(device=device), make, device=device.type)


@pytest.mark.parametrize("make", LAYERS)
def test_layers_made_under_fake_tensors(make):
    with torch._subclasses.FakeTensorMode():
        layer = make()
        assert layer(input_of(layer, torch.float32)).dim() > 2


@pytest.mark.parametrize("make", LAYERS)
def test_what_is_saved(make):
    """The parameters, and no filter; float64 filters hold what the design says."""
    layer = make()
    assert list(layer.state_dict()) == [name for name, _ in layer.named_parameters()]
    layer.double()
    for kernel, taps, gain in (
        (layer.up_kernel, layer.up_taps, layer.up), (layer.down_kernel, layer.down_taps, 1)
    ):  # fmt: skip
        assert (kernel is None) == (taps is None)
        if taps is not None:
            assert torch.equal(kernel, torch.tensor(taps, dtype=torch.float64) * gain)


def test_where_parameters_start():
    assert FilteredLeakyReLU(3).bias.tolist() == [0.0] * 3
    assert FilteredSnake(2, 0.5).alpha.tolist() == [0.5] * 2
    layer = FilteredSnakeBeta(2, 0.5, log_scale=True)
    assert layer.alpha.exp().tolist() == layer.beta.exp().tolist() == [0.5] * 2


def test_repr():
    assert repr(FilteredLeakyReLU(8, radial=True)) == (
        "FilteredLeakyReLU(8, up=2, down=2, up_taps=12, down_taps=12x12, padding_mode='zeros')"
    )
    assert repr(FilteredSnakeBeta(8, log_scale=True, down=1)) == (
        "FilteredSnakeBeta(8, up=2, down=1, up_taps=12, padding_mode='replicate', log_scale=True)"
    )


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: FilteredLeakyReLU(-1), ValueError, "channels must be >= 0, got -1"),
        (lambda: FilteredLeakyReLU(3, (2, 2)), TypeError, "up must be an int, got (2, 2)"),
        (lambda: FilteredLeakyReLU(3, down=0), ValueError, "down must be >= 1, got 0"),
        (lambda: FilteredLeakyReLU(3, filter_size=0), ValueError,
         "filter_size must be >= 1, got 0"),
        (lambda: FilteredLeakyReLU(3, sampling_rate=0), ValueError,
         "sampling_rate must be finite and > 0, got sampling_rate=0"),
        (lambda: FilteredLeakyReLU(3, in_cutoff=1.0), ValueError,
         "in_cutoff and in_half_width make no filter: cutoff must lie in (0, sampling_rate / 2), "
         "here (0, 1), got 1.0"),
        (lambda: FilteredLeakyReLU(3, in_half_width=100.0), ValueError,
         "in_cutoff and in_half_width make no filter: width must give a Kaiser window of "
         "beta <= 700, got 200.0, which gives beta=1740.28 with numtaps=12"),
        (lambda: FilteredLeakyReLU(3, out_half_width=100.0, radial=True), ValueError,
         "out_cutoff and out_half_width make no filter: width must give a Kaiser window of "
         "beta <= 700, got 200.0, which gives beta=1740.28 with numtaps=12"),
        (lambda: FilteredLeakyReLU(3, bias=0), TypeError, "bias must be a bool, got bias=0"),
        (lambda: FilteredLeakyReLU(3, radial=None), TypeError,
         "radial must be a bool, got radial=None"),
        (lambda: FilteredSnake(3, log_scale="x"), TypeError,
         "log_scale must be a bool, got log_scale='x'"),
        (lambda: FilteredSnakeBeta(3, log_scale=1), TypeError,
         "log_scale must be a bool, got log_scale=1"),
        (lambda: FilteredLeakyReLU(3, bias=False)(torch.ones(1, 4, 5, 6)), ValueError,
         "input must have the channels of the layer, 3, got 4: shape (1, 4, 5, 6)"),
        (lambda: FilteredLeakyReLU(3)(torch.ones(1, 1, 5, 6)), ValueError,
         "input must have the channels of the layer, 3, got 1: shape (1, 1, 5, 6)"),
        (lambda: FilteredSnake(3)(torch.ones(1, 4, 5)), ValueError,
         "input must have the channels of the layer, 3, got 4: shape (1, 4, 5)"),
        (lambda: FilteredLeakyReLU(3)(torch.ones(3, 16, 16)), ValueError,
         "input must have 4 dimensions [N, C, H, W], got 3: shape (3, 16, 16)"),
        (lambda: FilteredLeakyReLU(3)(torch.ones(3, 16)), ValueError,
         "input must have 4 dimensions [N, C, H, W], got 2: shape (3, 16)"),
        (lambda: FilteredSnake(3)(torch.ones(3, 16)), ValueError,
         "input must have 3 dimensions [N, C, L], got 2: shape (3, 16)"),
        (lambda: FilteredSnake(3)(torch.ones(1, 2, 3, 4)), ValueError,
         "input must have 3 dimensions [N, C, L], got 4: shape (1, 2, 3, 4)"),
        (lambda: FilteredSnakeBeta(3)(torch.ones(3)), ValueError,
         "input must have 3 dimensions [N, C, L], got 1: shape (3,)"),
        (lambda: FilteredSnake(3)([1.0]), TypeError,
         "input must be a tensor [N, C, L], got [1.0] (list)"),
        (lambda: FilteredLeakyReLU(3, out_half_width="1"), TypeError,
         "out_half_width must be a number, got out_half_width='1' (str)"),
        (lambda: FilteredLeakyReLU(3, gain=0), ValueError,
         "gain must be finite and > 0, got gain=0"),
        (lambda: FilteredLeakyReLU(3, clamp=-1), ValueError,
         "clamp must be finite and > 0, got clamp=-1"),
        (lambda: FilteredLeakyReLU(3, negative_slope=-1), ValueError,
         "negative_slope must be finite and >= 0, got negative_slope=-1"),
        (lambda: FilteredLeakyReLU(3, pad=(1, 2, 3)), ValueError,
         "pad must have 2 values (before, after) or 4 values (x0, x1, y0, y1), got 3: "
         "pad=(1, 2, 3)"),
        (lambda: FilteredLeakyReLU(3, padding_mode="reflect"), ValueError,
         "padding_mode must be one of zeros, replicate, got 'reflect'"),
        (lambda: FilteredSnake(3, alpha=0), ValueError,
         "alpha must be finite and > 0, got alpha=0"),
        (lambda: FilteredSnake(3, up=4, up_numtaps=3), ValueError,
         "up_numtaps must be >= 4, got 3"),
        (lambda: FilteredSnakeBeta(3.0), TypeError, "channels must be an int, got 3.0"),
    ],
)  # fmt: skip
def test_errors(call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        call()


def test_the_pads_are_stylegan3_s():
    """Its formula for an output as large as ``size * up // down``."""
    for up, down in ((2, 2), (4, 2), (2, 4), (1, 1), (3, 2)):
        for taps in ((6 * up, 6 * down), (1, 6 * down), (7, 5)):
            for size in (8, 13):
                out = size * up // down
                total = (out - 1) * down + 1 - size * up + sum(taps) - 2
                if out * down == size * up:
                    before = (total + up) // 2
                    expected = before, total - before
                    assert geometry.filtered_pad(*taps, up, down) == expected
                p0, p1 = geometry.filtered_pad(*taps, up, down)
                middle = geometry.output_size(size, up, 1, p0, p1, taps[0])
                assert geometry.output_size(middle, 1, down, 0, 0, taps[1]) == out
