# SPDX-License-Identifier: BSD-3-Clause
"""Rational rates: scipy's ``resample_poly`` to the sample, in every dtype and with gradients."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import scipy.signal
import torch

from resample_layers import UpFirDnResample, UpFirDnResample1d, UpFirDnResample3d, filters

from . import oracle

RATES = [(1, 2), (2, 1), (3, 2), (2, 3), (4, 6), (7, 5), (5, 11), (160, 147)]


def resample_poly(x, up, down, dims=1, **arguments):
    """scipy's, along the last axes, in float64."""
    out = x.detach().double().numpy()
    for axis in range(-dims, 0):
        out = scipy.signal.resample_poly(out, up, down, axis=axis, **arguments)
    return torch.from_numpy(out)


@pytest.mark.parametrize("length", [1, 2, 9, 64, 301])
@pytest.mark.parametrize(("up", "down"), RATES)
def test_resample_poly(up, down, length):
    x = torch.randn(2, 3, length, dtype=torch.float64)
    out = UpFirDnResample1d(up, down).double()(x)
    assert out.shape == (2, 3, math.ceil(length * up / down))
    torch.testing.assert_close(out, resample_poly(x, up, down), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", oracle.TOLERANCE, ids=str)
def test_every_dtype(dtype, device):
    x = torch.randn(2, 3, 100).to(dtype)
    layer = UpFirDnResample1d(3, 2).to(device, dtype)
    out = layer(x.to(device))
    assert out.dtype == dtype
    tolerance = 4 * oracle.TOLERANCE[dtype]
    expected = resample_poly(x, 3, 2)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("numtaps", [1, 2, 7, 8])
@pytest.mark.parametrize(("up", "down"), [(3, 2), (2, 5)])
def test_a_filter_that_is_given(up, down, numtaps):
    """Neither symmetric nor of odd length; scipy takes it as it is, and we divide by its sum."""
    taps = np.random.default_rng(numtaps).uniform(0.1, 1.0, numtaps)
    x = torch.randn(1, 2, 30, dtype=torch.float64)
    out = UpFirDnResample1d(up, down, taps).double()(x)
    expected = resample_poly(x, up, down, window=taps / taps.sum())
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "padtype"), [("zeros", "constant"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_padding_modes_are_scipy_s_padtypes(mode, padtype):
    x = torch.randn(1, 2, 60, dtype=torch.float64)
    for up, down in ((3, 2), (2, 3)):
        out = UpFirDnResample1d(up, down, padding_mode=mode).double()(x)
        expected = resample_poly(x, up, down, padtype=padtype)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_equal_rates_filter_nothing():
    x = torch.randn(1, 2, 9)
    for layer in (UpFirDnResample1d(1, 1), UpFirDnResample1d(6, 6, (1, 3, 3, 1))):
        assert torch.equal(layer(x), x)
        assert layer.shift == (0.0,)


@pytest.mark.parametrize(("up", "down"), [(3, 2), (2, 3)])
def test_images_and_volumes(up, down):
    image = torch.randn(2, 2, 9, 14, dtype=torch.float64)
    out = UpFirDnResample(up, down).double()(image)
    torch.testing.assert_close(out, resample_poly(image, up, down, 2), rtol=1e-12, atol=1e-12)
    volume = torch.randn(1, 2, 5, 6, 7, dtype=torch.float64)
    out = UpFirDnResample3d(up, down).double()(volume)
    torch.testing.assert_close(out, resample_poly(volume, up, down, 3), rtol=1e-12, atol=1e-12)
    kernel = torch.rand(3, 4, dtype=torch.float64)
    layer = UpFirDnResample(up, down, kernel).double()
    sides = [math.ceil(side * up / down) for side in (9, 14)]
    assert layer(image).shape[2:] == tuple(sides)
    kernel *= up**2 / kernel.sum()
    oracle.assert_matches(layer(image), image, kernel, (up, up), (down, down), (2, 1, 1, 1))


def test_gradients():
    x = torch.randn(1, 2, 7, dtype=torch.float64, requires_grad=True)
    for rate in ((3, 2), (2, 3)):
        layer = UpFirDnResample1d(*rate).double()
        assert torch.autograd.gradcheck(layer, (x,))
        assert torch.autograd.gradgradcheck(layer, (x,))


def test_where_samples_lie():
    """A ramp holds the value at its own position, ``n * down / up`` of the input."""
    ramp = torch.arange(400.0, dtype=torch.float64).reshape(1, 1, -1)
    for up, down in ((3, 2), (2, 3), (160, 147)):
        layer = UpFirDnResample1d(up, down).double()
        out = layer(ramp)[0, 0]
        n = torch.arange(out.numel(), dtype=torch.float64)
        inside = slice(out.numel() // 4, out.numel() // 2)
        torch.testing.assert_close(out[inside], (n * down / up)[inside], rtol=2e-3, atol=0)
        position = (n + 0.5) * down / up - 0.5 + layer.shift[0]
        torch.testing.assert_close(position, n * down / up)


def test_the_layer_as_a_module():
    """Nothing is saved, the taps survive a move, and the repr leaves out designed taps."""
    layer = UpFirDnResample1d(48000, 44100)
    assert repr(layer) == "UpFirDnResample1d(up=160, down=147)"
    assert not layer.state_dict()
    taps = torch.tensor([tap * 160 for tap in filters.design_rational_taps(160, 147)])
    for moved in (layer.half(), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)),
                  layer.to("meta").to_empty(device="cpu")):  # fmt: skip
        assert moved.kernel_x.dtype == torch.float32
        assert torch.equal(moved.kernel_x, taps)
    given = UpFirDnResample(3, 2, (1, 2, 1), "replicate")
    assert repr(given) == (
        "UpFirDnResample(resample_kernel=[1, 2, 1], up=3, down=2, padding_mode='replicate')"
    )


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: UpFirDnResample1d(0, 1), ValueError, "up must be >= 1, got up=0"),
        (lambda: UpFirDnResample1d(1.5, 1), TypeError,
         "up must be made of ints, got up=1.5 (float)"),
        (lambda: UpFirDnResample(2, (2, 3)), TypeError,
         "down must be an int for all axes, got down=(2, 3)"),
        (lambda: UpFirDnResample1d(2, 1, [[1, 1]]), ValueError,
         "resample_kernel of a UpFirDnResample1d must be [taps], for its kernel is separable, got "
         "[kh, kw]: [[1, 1]]"),
        (lambda: UpFirDnResample1d(2, 1, padding_mode="edge"), ValueError,
         "padding_mode must be one of zeros, reflect, replicate, circular, got 'edge'"),
        (lambda: UpFirDnResample1d(3, 2, padding_mode="replicate")(torch.ones(1, 2, 0)),
         ValueError,
         "padding_mode='replicate' needs an input of at least 1 (length), got 0"),
        (lambda: UpFirDnResample(3, 2, padding_mode="replicate")(torch.ones(1, 2, 4, 0)),
         ValueError,
         "padding_mode='replicate' needs an input of at least 1x1 (height x width), got 4x0"),
        (lambda: UpFirDnResample3d(3, 2, padding_mode="replicate")(torch.ones(1, 2, 0, 4, 4)),
         ValueError,
         "padding_mode='replicate' needs an input of at least 1x1x1 (depth x height x width), got "
         "0x4x4"),
    ],
)  # fmt: skip
def test_errors(call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        call()
