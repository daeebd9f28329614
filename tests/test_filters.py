# SPDX-License-Identifier: BSD-3-Clause
"""Taps and kernels: normalisation, names, design, phases."""

import re
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch

from resample_layers import UpFirDnDownsample, UpFirDnUpsample, filters, make_resample_kernel
from resample_layers.filters import (
    NAMED_TAPS,
    design_lowpass,
    design_radial_lowpass,
    design_rational_taps,
    design_resample_taps,
    kaiser_attenuation,
    kaiser_beta,
    kaiser_lowpass,
    kaiser_sinc,
    kaiser_window,
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


@pytest.mark.parametrize("numtaps", [1, 2, 12, 13])
@pytest.mark.parametrize("width", [0.0, 0.1, 1.3])
def test_kaiser_attenuation_equals_scipy(numtaps, width):
    expected = scipy.signal.kaiser_atten(numtaps, width)
    assert kaiser_attenuation(numtaps, width) == pytest.approx(expected)


@pytest.mark.parametrize("numtaps", [1, 2, 3, 12, 33])
@pytest.mark.parametrize("beta", [0.0, 0.5, 5.0, 30.0])
def test_kaiser_window_equals_scipy(numtaps, beta):
    expected = scipy.signal.windows.kaiser(numtaps, beta)
    np.testing.assert_allclose(kaiser_window(numtaps, beta), expected, rtol=1e-14)


LOWPASS = [(12, 2.0, 4.3, 32.0), (24, 6.5, 1.0, 64.0), (48, 100.0, 90.0, 1024.0), (5, 1.0, 0.0, 8)]


@pytest.mark.parametrize("design", LOWPASS)
def test_design_lowpass_equals_firwin(design):
    numtaps, cutoff, width, rate = design
    expected = scipy.signal.firwin(numtaps, cutoff, width=width, fs=rate)
    np.testing.assert_allclose(design_lowpass(*design), expected, atol=1e-15)


@pytest.mark.parametrize("design", LOWPASS)
def test_design_radial_lowpass(design):
    """The published formula with scipy's Bessel function; at the middle, its limit."""
    numtaps, cutoff, width, rate = design
    x = (np.arange(numtaps) - (numtaps - 1) / 2) / rate
    r = np.maximum(np.hypot(x, x[:, None]), 1e-9)
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(numtaps, width / (rate / 2)))
    window = scipy.signal.windows.kaiser(numtaps, beta)
    expected = scipy.special.j1(2 * cutoff * np.pi * r) / (np.pi * r) * np.outer(window, window)
    expected /= expected.sum()
    rows = design_radial_lowpass(*design)
    np.testing.assert_allclose(rows, expected, rtol=1e-11, atol=1e-15)
    assert rows == rows[::-1] == tuple(zip(*rows, strict=True))  # to the bit
    assert filters.deviation_from_rank_one(rows) > 1e-4


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("numtaps", [1, 4, 12, 13, 24])
def test_kaiser_sinc(ratio, numtaps):
    """The published formula: the attenuation of ``numtaps // 2`` taps, the middle on a tap."""
    t = np.arange(numtaps) - (numtaps - 1) / 2
    attenuation = 2.285 * (numtaps // 2 - 1) * np.pi * 4 * 0.6 / ratio + 7.95
    window = scipy.signal.windows.kaiser(numtaps, scipy.signal.kaiser_beta(attenuation))
    expected = window * np.sinc(t / ratio) / ratio
    expected /= expected.sum()
    np.testing.assert_allclose(kaiser_sinc(0.5 / ratio, 0.6 / ratio, numtaps), expected, atol=1e-14)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (6, 6), (2, 1), (1, 3), (160, 147), (48, 36)])
def test_design_rational_taps(up, down):
    """What ``resample_poly`` answers an impulse with, divided by its gain."""
    divisor = np.gcd(up, down)
    u, d = up // divisor, down // divisor
    taps = np.array(design_rational_taps(up, down))
    if u == d:
        assert taps.tolist() == [1.0]
        return
    assert len(taps) == 20 * max(u, d) + 1
    expected = scipy.signal.firwin(len(taps), 1 / max(u, d), window=("kaiser", 5.0))
    np.testing.assert_allclose(taps, expected, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: kaiser_window(0, 1.0), ValueError, "numtaps must be >= 1, got 0"),
        (lambda: kaiser_window(3, -1), ValueError, "beta must be >= 0 and finite, got -1"),
        (lambda: kaiser_attenuation(3.0, 1), TypeError, "numtaps must be an int, got 3.0"),
        (lambda: kaiser_attenuation(3, float("nan")), ValueError,
         "width must be >= 0 and finite, got nan"),
        (lambda: design_lowpass(12, 16, 1, 32), ValueError,
         "cutoff must lie in (0, sampling_rate / 2), here (0, 16), got 16"),
        (lambda: design_lowpass(12, 1, -1, 32), ValueError,
         "width must be >= 0 and finite, got -1"),
        (lambda: design_radial_lowpass(12, 1, 1, 0), ValueError,
         "sampling_rate must be > 0 and finite, got 0"),
        (lambda: design_radial_lowpass(True, 1, 1, 8), TypeError,
         "numtaps must be an int, got True"),
        (lambda: kaiser_sinc(0.0, 0.3, 12), ValueError,
         "cutoff must lie in (0, 0.5] cycles per sample, got 0.0"),
        (lambda: kaiser_sinc(0.25, -0.3, 12), ValueError,
         "half_width must be >= 0 and finite, got -0.3"),
        (lambda: kaiser_window(3, 701.0), ValueError, "beta must be <= 700, got 701.0"),
        (lambda: kaiser_lowpass(3, 0.5, 1e9), ValueError, "beta must be <= 700, got 1000000000.0"),
        (lambda: kaiser_beta(float("nan")), ValueError, "attenuation must be finite, got nan"),
        (lambda: kaiser_sinc(0.25, 500.0, 12), ValueError,
         "half_width must give a Kaiser window of beta <= 700, got 500.0, which gives "
         "beta=7910.67 with numtaps=12"),
        (lambda: kaiser_sinc(0.25, 1e308, 12), ValueError,
         "half_width must give a Kaiser window of beta <= 700, got 1e+308, which gives "
         "beta=inf with numtaps=12"),
        (lambda: design_lowpass(12, 8.0, 3200.0, 32), ValueError,
         "width must give a Kaiser window of beta <= 700, got 3200.0, which gives "
         "beta=1740.28 with numtaps=12"),
        (lambda: design_radial_lowpass(12, 8.0, 3200.0, 32), ValueError,
         "width must give a Kaiser window of beta <= 700, got 3200.0, which gives "
         "beta=1740.28 with numtaps=12"),
        (lambda: design_resample_taps(2, attenuation=1e4), ValueError,
         "attenuation must give a Kaiser window of beta <= 700, got 10000.0, which gives "
         "beta=1101.04 with numtaps=12"),
        (lambda: design_rational_taps(2.0, 1), TypeError, "up must be an int, got 2.0"),
        (lambda: design_rational_taps(2, 0), ValueError, "down must be >= 1, got 0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_errors_of_the_designs(call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        call()


HUGE = 10**400  # beyond a float


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: kaiser_window(3, HUGE), "beta must be >= 0 and finite"),
        (lambda: kaiser_window(3, -HUGE), "beta must be >= 0 and finite"),
        (lambda: kaiser_beta(HUGE), "attenuation must be finite"),
        (lambda: kaiser_attenuation(3, HUGE), "width must be >= 0 and finite"),
        (lambda: kaiser_lowpass(3, HUGE, 1.0),
         "cutoff must lie in (0, 1), 1 the Nyquist frequency"),
        (lambda: kaiser_lowpass(3, 0.5, HUGE), "beta must be >= 0 and finite"),
        (lambda: kaiser_sinc(0.25, HUGE, 12), "half_width must be >= 0 and finite"),
        (lambda: kaiser_sinc(HUGE, 0.3, 12), "cutoff must lie in (0, 0.5] cycles per sample"),
        (lambda: design_lowpass(3, 1.0, HUGE, 8.0), "width must be >= 0 and finite"),
        (lambda: design_lowpass(3, 1.0, 1.0, HUGE), "sampling_rate must be > 0 and finite"),
        (lambda: design_lowpass(3, HUGE, 1.0, 8.0),
         "cutoff must lie in (0, sampling_rate / 2), here (0, 4)"),
        (lambda: design_resample_taps(2, attenuation=HUGE),
         "attenuation must be >= 0 dB and finite"),
    ],
)  # fmt: skip
def test_numbers_beyond_a_float_are_told(call, rule):
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}, got -?1000"):
        call()


def test_taps_beyond_a_float_are_told():
    with pytest.raises(ValueError, match=r"^k must be finite, got \[1, 1000"):
        make_resample_kernel([1, HUGE])


def test_the_steepest_windows_give_finite_filters():
    """As scipy's where its Bessel function does not overflow, down to the fewest taps."""
    for numtaps in (1, 2, 3, 12):
        window = kaiser_window(numtaps, 700.0)
        expected = scipy.signal.windows.kaiser(numtaps, 700.0)
        np.testing.assert_allclose(window, expected, rtol=1e-12)
        assert sum(kaiser_lowpass(numtaps, 0.5, 700.0)) == pytest.approx(1.0)
        width = 2 if numtaps == 1 else 6350 / (2.285 * np.pi * (numtaps - 1))
        assert np.sum(design_radial_lowpass(numtaps, 0.5, width, 2.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("real", [np.float32, np.float64, np.int64, Fraction])
def test_taps_are_python_floats_whatever_kind_of_number_is_given(real):
    one, eight = real(1), real(8)
    for taps in (
        kaiser_window(12, eight),
        kaiser_lowpass(12, one / 2, eight),
        kaiser_sinc(one / 2, one, 12),
        design_lowpass(12, eight, one, real(32)),
        *design_radial_lowpass(12, eight, one, real(32)),
        design_resample_taps(2, 12, real(50)),
        (kaiser_beta(real(50)), kaiser_attenuation(12, one)),
    ):
        assert {type(tap) for tap in taps} == {float}
    assert design_lowpass(12, eight, one, real(32)) == design_lowpass(12, 8.0, 1.0, 32.0)


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
    # Arrays, tensors, ints of NumPy; a sum of zero; phases without taps are not counted one by one
    assert phases_sum_alike(np.array([1, 3, 3, 1]), np.int64(2))
    assert not phases_sum_alike(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), [2, 2])
    assert phases_sum_alike([1, 1, -1, -1], 2)
    assert phases_sum_alike([0, 0], 2**31 - 1)
    assert not phases_sum_alike([[1.0, 1.0]], (1, 2**31 - 1))
    assert phases_sum_alike([1e308] * 4, 2)  # their sum overflows


@pytest.mark.parametrize(
    ("taps", "factor", "kind", "sentence"),
    [
        ([], 2, ValueError, "taps must have at least one tap, got []"),
        ([[]], 2, ValueError, "taps must have at least one tap, got [[]]"),
        ([1, 3], 0, ValueError, "factor must be >= 1, got 0"),
        ([[1, 3]], (2, -1), ValueError, "factor must be >= 1, got -1"),
        ([1, 3], 2**31, ValueError, "factor must be an int of 32 bits, got 2147483648"),
        ([1, 3], (2, 2, 2), ValueError, "factor must be an int or 2 ints (x, y), got (2, 2, 2)"),
        ([1, 3], 2.0, TypeError, "factor must be an int, got 2.0"),
        ([1, 3], True, TypeError, "factor must be an int, got True"),
        ("ab", 2, TypeError, "taps must be a list, tuple, array or tensor of taps, got 'ab' (str)"),
        ([1, "b"], 2, TypeError, "taps must be made of real numbers, got 'b' in it"),
        ([1, float("nan")], 2, ValueError, "taps must be finite, got [1, nan]"),
        ([[1], [1, 2]], 2, ValueError, "taps must have rows of one length, got [[1], [1, 2]]"),
    ],
)
def test_wrong_arguments_of_phases_sum_alike(taps, factor, kind, sentence):
    with pytest.raises(kind, match=f"^{re.escape(sentence)}$"):
        phases_sum_alike(taps, factor)


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
