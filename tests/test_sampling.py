# SPDX-License-Identifier: BSD-3-Clause
"""How many samples the layers return, and where these lie: ``ceil_mode`` and ``shift``."""

import math

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F

import resample_layers
from resample_layers import UpFirDnDownsample

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
pytestmark = pytest.mark.filterwarnings("ignore:the phases of resample_kernel")


def layer(kind, dims):
    """UpFirDnUpsample and the others, of signals, images or volumes."""
    return getattr(resample_layers, f"UpFirDn{kind}{'' if dims == 2 else f'{dims}d'}")


# ceil_mode


def depthwise(x, taps, pads, mode, stride):
    """Pad, then a strided depthwise convolution with the outer product of the taps."""
    dims = x.dim() - 2
    taps = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    kernel = taps
    for _ in range(dims - 1):
        kernel = kernel[..., None] * taps
    weight = kernel.expand(x.shape[1], 1, *kernel.shape)
    return CONV[dims](F.pad(x, pads * dims, mode), weight, stride=stride, groups=x.shape[1])


@DIMS
@pytest.mark.parametrize("taps", range(1, 8))
def test_ceil_mode_gives_the_samples_of_antialiased_cnns(dims, taps):
    """Its BlurPool reflects (taps - 1) / 2 samples, rounded down before and up after."""
    values = [math.comb(taps - 1, i) for i in range(taps)]
    pads = (math.floor((taps - 1) / 2), math.ceil((taps - 1) / 2))
    ours = layer("Downsample", dims)(values, 2, "reflect", ceil_mode=True).double()
    for size in ((8, 6, 5), (5, 9, 7), (6, 7, 8)):
        x = torch.randn(2, 3, *size[:dims], dtype=torch.float64)
        out = ours(x)
        assert out.shape == (2, 3, *[math.ceil(side / 2) for side in x.shape[2:]])
        torch.testing.assert_close(out, depthwise(x, values, pads, "reflect", 2))


@pytest.mark.parametrize("taps", [3, 5, 7])
def test_ceil_mode_gives_the_samples_of_timm(taps):
    """Its BlurPool2d reflects (stride - 1 + taps - 1) // 2 samples on each side."""
    values = [math.comb(taps - 1, i) for i in range(taps)]
    pads = ((1 + taps - 1) // 2,) * 2
    ours = UpFirDnDownsample(values, 2, "reflect", ceil_mode=True).double()
    for size in ((8, 6), (5, 9), (6, 7)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(ours(x), depthwise(x, values, pads, "reflect", 2))


@DIMS
@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_ceil_mode_adds_a_sample_and_moves_none(dims, mode, factor):
    """The layer without a mode, on an image that NumPy continued far, has the samples inside."""
    for taps, side in ((1, 7), (2, 8), (4, 9), (5, 10), (6, 11)):
        values = [1.0 + i * i for i in range(taps)]
        x = torch.randn(1, 2, *(side, 7, 8)[:dims], dtype=torch.float64)
        out = layer("Downsample", dims)(values, factor, mode, True).double()(x)
        assert out.shape == (1, 2, *[-(-n // factor) for n in x.shape[2:]])
        far = -(-taps // factor)  # [output samples]
        pads = [(0, 0)] * 2 + [(far * factor,) * 2] * dims
        wide = torch.from_numpy(np.pad(x.numpy(), pads, NUMPY_MODES[mode]))
        wide = layer("Downsample", dims)(values, factor).double()(wide)
        torch.testing.assert_close(out, wide[(..., *[slice(far, far + n) for n in out.shape[2:]])])
        floor = layer("Downsample", dims)(values, factor, mode).double()(x)
        torch.testing.assert_close(out[(..., *[slice(n) for n in floor.shape[2:]])], floor)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_ceil_mode_without_a_word_of_it_is_off(dims):
    x = torch.randn(1, 2, *(5, 7, 9)[:dims])
    assert layer("Downsample", dims)()(x).shape[2:] == (2, 3, 4)[:dims]
    assert not layer("Downsample", dims)().ceil_mode


@DIMS
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_ceil_mode_serves_every_size_in_one_program(dims, mode):
    """Compiled, exported and traced at one size, run at others, forward and backward."""
    model = layer("Downsample", dims)((1, 3, 3, 1), (2, 3, 2)[:dims], mode, ceil_mode=True)
    sizes = [(8, 9, 10), (9, 7, 11), (10, 10, 6), (7, 8, 5)]
    inputs = [torch.randn(2 + i, 3, *size[:dims]) for i, size in enumerate(sizes)]
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    auto = torch.export.Dim.AUTO
    dynamic = ({0: auto, **{2 + i: auto for i in range(dims)}},)
    programs = [
        compiled,
        torch.export.export(model, (inputs[0],), dynamic_shapes=dynamic).module(),
        torch.jit.trace(model, inputs[0]),
        torch.fx.symbolic_trace(model),
    ]
    for x in inputs:
        x.requires_grad_()
        expected = model(x)
        assert expected.shape[2:] == tuple(
            -(-n // f) for n, f in zip(x.shape[2:], model.factor[::-1], strict=True)
        )
        gradient = torch.randn_like(expected)
        (expected_grad,) = torch.autograd.grad(expected, x, gradient)
        for program in programs:
            out = program(x)
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(torch.autograd.grad(out, x, gradient)[0], expected_grad)
    assert counter.frame_count == 1


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_ceil_mode_is_a_bool(wrong):
    with pytest.raises(TypeError, match=f"^ceil_mode must be a bool, got ceil_mode={wrong!r}$"):
        UpFirDnDownsample(ceil_mode=wrong)


def test_ceil_mode_is_shown():
    assert repr(UpFirDnDownsample((1, 2, 1), 2, "reflect", True)) == (
        "UpFirDnDownsample(resample_kernel=[1, 2, 1], factor=2, padding_mode='reflect', "
        "ceil_mode=True)"
    )
    assert "ceil_mode" not in repr(UpFirDnDownsample())
