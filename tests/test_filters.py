# SPDX-License-Identifier: BSD-3-Clause
"""Taps and kernels: normalisation, names, design, phases."""

import numpy as np
import pytest
import scipy.signal
import torch

from resample_layers import UpFirDnDownsample, UpFirDnUpsample, make_resample_kernel
from resample_layers.filters import (
    NAMED_TAPS,
    design_resample_taps,
    kaiser_beta,
    kaiser_lowpass,
    phases_sum_alike,
)

EXPECTED = torch.tensor([[1.0, 3, 3, 1], [3, 9, 9, 3], [3, 9, 9, 3], [1, 3, 3, 1]]) / 64


@pytest.mark.parametrize(
    "k",
    [
        [1, 3, 3, 1],
        (1.0, 3.0, 3.0, 1.0),
        np.array([1, 3, 3, 1]),
        np.array([2, 6, 6, 2], dtype=np.float16),
        np.array([1.0, 3, 3, 1])[::-1],
        np.array([1, 3, 3, 1], dtype=">f8"),
        [np.float32(1), torch.tensor(3), 3, 1.0],
        [5e307, 1.5e308, 1.5e308, 5e307],  # their sum overflows
        torch.tensor([1, 3, 3, 1]),
        torch.tensor([-1.0, -3.0, -3.0, -1.0], dtype=torch.bfloat16, requires_grad=True),
        EXPECTED * 7,
        EXPECTED.tolist(),
    ],
    ids=lambda k: type(k).__name__,
)
def test_make_resample_kernel(k):
    kernel = make_resample_kernel(k)
    assert kernel.dtype == torch.float32
    assert not kernel.requires_grad
    torch.testing.assert_close(kernel, EXPECTED)


def test_make_resample_kernel_keeps_the_shape_of_2_d_taps():
    kernel = make_resample_kernel([[1, 2, 3], [4, 5, 6]])
    torch.testing.assert_close(kernel, torch.tensor([[1.0, 2, 3], [4, 5, 6]]) / 21)


def test_make_resample_kernel_is_not_flipped():
    assert make_resample_kernel([1, 2])[0, 1] > make_resample_kernel([1, 2])[0, 0]


def test_named_taps():
    assert NAMED_TAPS["binomial2"] == (1, 1)
    assert NAMED_TAPS["binomial4"] == (1, 3, 3, 1)
    assert NAMED_TAPS["binomial8"] == (1, 7, 21, 35, 35, 21, 7, 1)
    # The field's tables (k-diffusion, diffusers), as numbers
    np.testing.assert_allclose(NAMED_TAPS["linear"], [0.125, 0.375, 0.375, 0.125])
    half = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
    np.testing.assert_allclose(NAMED_TAPS["cubic"], half + half[::-1], atol=1e-12)
    half = [0.00368913, 0.01505614, -0.03399862, -0.06663732, 0.13550527, 0.44638532]
    np.testing.assert_allclose(NAMED_TAPS["lanczos3"], half + half[::-1], atol=1e-7)
    assert set(NAMED_TAPS) == {"linear", "cubic", "lanczos3"} | {
        f"binomial{n}" for n in range(2, 9)
    }
    for name, taps in NAMED_TAPS.items():
        assert taps == pytest.approx(taps[::-1]), name
        assert phases_sum_alike(taps, 2), name


@pytest.mark.parametrize("numtaps", [1, 2, 7, 12, 33])
@pytest.mark.parametrize("cutoff", [0.1, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("beta", [0.0, 2.5, 8.0])
def test_kaiser_lowpass_equals_firwin(numtaps, cutoff, beta):
    expected = scipy.signal.firwin(numtaps, cutoff, window=("kaiser", beta))
    np.testing.assert_allclose(kaiser_lowpass(numtaps, cutoff, beta), expected, atol=1e-15)


@pytest.mark.parametrize("attenuation", [10.0, 30.0, 50.0, 50.1, 80.0])
def test_kaiser_beta_equals_scipy(attenuation):
    assert kaiser_beta(attenuation) == pytest.approx(scipy.signal.kaiser_beta(attenuation))


@pytest.mark.parametrize("factor", range(1, 9))
@pytest.mark.parametrize("numtaps", [None, 17, 32])  # of both parities
def test_designed_taps_keep_flat_images_flat(factor, numtaps):
    taps = design_resample_taps(factor, numtaps)
    assert sum(taps) == pytest.approx(1.0)
    assert phases_sum_alike(taps, factor)
    up = UpFirDnUpsample(taps, factor, padding_mode="replicate")(torch.ones(1, 1, 5, 6))
    torch.testing.assert_close(up, torch.ones_like(up))


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_designed_taps_stop_what_would_alias(factor):
    """From 1.5 times the cutoff on, nothing above -40 dB; at half of it, less than 1 dB lost."""
    taps = design_resample_taps(factor, 12 * factor)
    w, h = scipy.signal.freqz(taps, worN=2048, fs=2.0)
    gain = 20 * np.log10(np.maximum(abs(h), 1e-9))
    assert gain[w >= 1.5 / factor].max() < -40
    assert gain[w <= 0.5 / factor].min() > -1
    # Equal phases cost little: the design stays within its own ripple
    plain = kaiser_lowpass(12 * factor, 1 / factor, kaiser_beta(50.0))
    assert max(abs(np.array(taps) - plain)) < 10 ** (-50 / 20) / factor


def test_phases_sum_alike():
    assert phases_sum_alike((1, 3, 3, 1), 2)
    assert not phases_sum_alike((1, 3, 3, 1), 3)
    assert not phases_sum_alike((1, 3, 3, 1), 4)
    assert phases_sum_alike((1, 2, 3, 2, 1), 3)
    assert not phases_sum_alike((1, 1), 3)  # a phase without taps
    assert phases_sum_alike(((1, 1), (1, 1)), 2)
    assert phases_sum_alike(((1, 1), (1, 1)), (2, 1))
    assert not phases_sum_alike(((1, 1), (1, 2)), 2)
    assert phases_sum_alike((1, 1, 1), (3, 1))
    assert not phases_sum_alike((1, 1, 1), (3, 2))
    # Marginals alike, phases not
    assert not phases_sum_alike(((1, 2), (2, 1)), 2)


def test_uneven_phases_warn_once_and_name_taps_that_do_not():
    message = (
        r"^the phases of resample_kernel do not sum alike at factor 3, which leaves a pattern on "
        r"flat images; resample_layers.filters.design_resample_taps\(3\) gives taps that do$"
    )
    with pytest.warns(UserWarning, match=message) as record:
        layer = UpFirDnUpsample([1, 5, 5, 1], 3)
    assert record[0].filename == __file__
    UpFirDnUpsample([1, 5, 5, 1], 3)  # a second warning would be an error
    flat = layer(torch.ones(1, 1, 9, 9))[..., 9:-9, 9:-9]
    assert flat.max() - flat.min() > 0.1  # the pattern is real
    with pytest.warns(UserWarning, match=r"at factor 2.*design_resample_taps\(2\)"):
        UpFirDnUpsample([1, 1, 1], (3, 2))  # it is the axis with factor 2
    with pytest.warns(UserWarning, match=r"at factor 3.*design_resample_taps\(3\)"):
        UpFirDnUpsample([[1, 1], [1, 1]], (2, 3))  # of 2-D kernels too
    UpFirDnUpsample([[1, 2], [2, 1]], (2, 1))  # alike along x, and y is not upsampled
    with pytest.warns(UserWarning, match=r"at factor 2.*design_resample_taps\(2\)"):
        UpFirDnUpsample([[1, 2], [2, 1]], 2)  # alike along both axes, not together
    UpFirDnDownsample([1, 5, 5, 1], 3)  # flat images stay flat when downsampled
