# SPDX-License-Identifier: BSD-3-Clause
"""From taps to kernels: normalisation, named taps, low-pass design, the per-phase check."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .values import as_count, shown, to_float

Taps = tuple[float, ...]


def make_resample_kernel(k: Any) -> Tensor:
    """Make the 2-D kernel of some taps: ``outer(k, k)`` if 1-D, and divided by its sum.

    Args:
        k: taps as a (nested) list or tuple, a NumPy array or a tensor; ``[taps]`` or
            ``[kh, kw]``.

    Returns:
        A float32 tensor ``[taps, taps]`` or ``[kh, kw]`` that sums to 1.

    Raises:
        TypeError: if ``k`` is not made of real numbers.
        ValueError: if ``k`` is of another rank, is empty, has a tap that is not finite, or sums
            to zero.

    Example:
        >>> make_resample_kernel([1, 3, 3, 1])[0] * 64
        tensor([1., 3., 3., 1.])

    Source of the formula: StyleGAN2's filter set-up, as in BasicSR's function of this name.
    """
    taps = normalise_taps("k", k)
    if isinstance(taps[0], tuple):
        return torch.tensor(taps, dtype=torch.float32)
    return torch.tensor([[a * b for b in taps] for a in taps], dtype=torch.float32)


def normalise_taps(name: str, k: Any) -> tuple[Any, ...]:
    """Check taps and divide them by their sum.

    Returns:
        Python floats: ``(taps...)`` or ``((row...), ...)``, with sum 1.

    Raises:
        TypeError, ValueError: as :func:`make_resample_kernel`, with ``name`` for the argument.
    """
    rows, has_rows = _as_rows(name, k)
    total = math.fsum(tap for row in rows for tap in row)
    if abs(total) <= 1e-12 * len(rows) * len(rows[0]):
        raise ValueError(f"{name} must not sum to zero, got {shown(_as_values(k))}")
    normalised = tuple(tuple(tap / total for tap in row) for row in rows)
    return normalised if has_rows else normalised[0]


def _as_values(k: Any) -> Any:
    """An array or a tensor as lists; anything else stays."""
    return k.tolist() if hasattr(k, "tolist") else k


def _as_rows(name: str, k: Any) -> tuple[list[list[float]], bool]:
    """Check taps of any sum, and divide them by their largest magnitude: no sum overflows then.

    Returns:
        Rows ``[kh][kw]``, and whether rows were given: ``[taps]`` are one row.
    """
    for part in (k, *k) if isinstance(k, (list, tuple)) else (k,):  # rows and taps may be tensors
        if isinstance(part, Tensor) and (part.is_meta or isinstance(part, FakeTensor)):
            raise ValueError(f"{name} must hold values, got a tensor on the meta device")
        if isinstance(part, Tensor) and part.layout != torch.strided:
            raise ValueError(f"{name} must be dense, got a tensor of layout {part.layout}")
    values = _as_values(k)
    if not isinstance(values, (list, tuple)):
        if isinstance(values, Real):
            raise ValueError(
                f"{name} must be [taps] or [kh, kw], got 0 dimensions: {shown(values)}"
            )
        raise TypeError(
            f"{name} must be a list, tuple, array or tensor of taps, "
            f"got {shown(values)} ({type(k).__name__})"
        )
    nested = [isinstance(row, (list, tuple)) or getattr(row, "ndim", 0) > 0 for row in values]
    if not any(nested):
        rows = [[_as_tap(name, tap) for tap in values]]
    else:
        rows = [
            [_as_tap(name, tap) for tap in row] if is_row else [_as_tap(name, row)]
            for row, is_row in zip(values, nested, strict=True)
        ]
        if not all(nested) or len({len(row) for row in rows}) > 1:
            raise ValueError(f"{name} must have rows of one length, got {shown(values)}")
    flat = [tap for row in rows for tap in row]
    if not flat:
        raise ValueError(f"{name} must have at least one tap, got {shown(values)}")
    if not all(map(math.isfinite, flat)):
        raise ValueError(f"{name} must be finite, got {shown(values)}")
    largest = max(map(abs, flat)) or 1.0
    return [[tap / largest for tap in row] for row in rows], any(nested)


def _as_tap(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.dim() == 0:
        if value.is_meta:
            raise ValueError(f"{name} must hold values, got a tensor on the meta device in it")
        value = value.item()
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0:
        raise ValueError(
            f"{name} must be [taps] or [kh, kw], got more dimensions: {shown(value)} in it"
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be made of real numbers, got {shown(value)} in it")
    return to_float(value)


def marginals(rows: Sequence[Sequence[float]]) -> tuple[Taps, Taps]:
    """The sums over each column and over each row of a kernel ``[kh][kw]``: taps ``(x, y)``.

    Example:
        >>> marginals([[1.0, 2.0], [3.0, 4.0]])
        ((4.0, 6.0), (3.0, 7.0))
    """
    columns = zip(*rows, strict=True)
    return tuple(map(math.fsum, columns)), tuple(map(math.fsum, rows))


def deviation_from_rank_one(rows: Sequence[Sequence[float]]) -> float:
    """How far a kernel ``[kh][kw]`` with sum 1 is from the outer product of its marginals.

    A kernel of rank one with sum 1 is the outer product of its marginals. Returns the sum of the
    magnitudes of what differs, relative to that of the kernel: what an image of magnitude 1 may
    change by, in units of the filter's largest response.

    Example:
        >>> deviation_from_rank_one([[0.125, 0.375], [0.125, 0.375]])
        0.0
        >>> deviation_from_rank_one([[0.5, 0.0], [0.0, 0.5]])
        1.0
    """
    taps_x, taps_y = marginals(rows)
    apart = math.fsum(
        abs(tap - x * y)
        for row, y in zip(rows, taps_y, strict=True)
        for tap, x in zip(row, taps_x, strict=True)
    )
    return apart / math.fsum(abs(tap) for row in rows for tap in row)


def centroid(taps: Sequence[float]) -> float:
    """How far the weight of taps with sum 1 lies behind the middle of them, in taps.

    Exactly 0 for symmetric taps.

    Example:
        >>> centroid([0.25, 0.75])
        0.25
    """
    middle = (len(taps) - 1) / 2
    return math.fsum(tap * (i - middle) for i, tap in enumerate(taps))


# Named taps


def _binomial(taps: int) -> Taps:
    return tuple(float(math.comb(taps - 1, i)) for i in range(taps))


def _sampled(kernel: Any, taps: int) -> Taps:
    """A continuous interpolation kernel at half its scale, sampled between its zeros."""
    values = [kernel(abs(i - (taps - 1) / 2) / 2) for i in range(taps)]
    return tuple(value / sum(values) for value in values)


def _triangle(t: float) -> float:
    return max(0.0, 1.0 - t)


def _keys(t: float) -> float:
    """Cubic convolution with a = -1/2."""
    if t < 1.0:
        return 1.5 * t**3 - 2.5 * t**2 + 1.0
    return -0.5 * t**3 + 2.5 * t**2 - 4.0 * t + 2.0 if t < 2.0 else 0.0


def _lanczos3(t: float) -> float:
    return _sinc(t) * _sinc(t / 3.0) if t < 3.0 else 0.0


def _sinc(t: float) -> float:
    return math.sin(math.pi * t) / (math.pi * t) if t else 1.0


NAMED_TAPS: dict[str, Taps] = {
    **{f"binomial{taps}": _binomial(taps) for taps in range(2, 9)},
    "linear": _sampled(_triangle, 4),
    "cubic": _sampled(_keys, 8),
    "lanczos3": _sampled(_lanczos3, 12),
}
"""Taps by name, for a factor of 2.

``binomial2`` to ``binomial8`` are rows of Pascal's triangle (``binomial4`` is StyleGAN's
[1, 3, 3, 1]). ``linear``, ``cubic`` (Keys, a = -1/2) and ``lanczos3`` are interpolation kernels,
sampled at 0.25, 0.75, 1.25 ... on both sides of their middle, and divided by their sum.
"""


# Design

LARGEST_BETA = 700.0  # the Bessel function of a larger one overflows; 34 reaches float64's rounding


def kaiser_beta(attenuation: float) -> float:
    """The Kaiser window's beta for a stop-band attenuation in dB.

    Raises:
        ValueError: if ``attenuation`` is not a finite number.

    Example:
        >>> round(kaiser_beta(60.0), 3)
        5.653

    Source of the formula: Kaiser, Nonrecursive digital filter design using the I0-sinh window
    function, 1974; as scipy.signal.kaiser_beta.
    """
    number = to_float(attenuation)
    if not math.isfinite(number):
        raise ValueError(f"attenuation must be finite, got {shown(attenuation)}")
    return _kaiser_beta(number)


def _kaiser_beta(attenuation: float) -> float:
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * math.pow(attenuation - 21, 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


def kaiser_attenuation(numtaps: int, width: float) -> float:
    """The stop-band attenuation in dB of a Kaiser-windowed filter: scipy's ``kaiser_atten``.

    Args:
        numtaps: number of taps, >= 1.
        width: of the transition from the pass band to the stop band, in units of the Nyquist
            frequency, >= 0.

    Raises:
        TypeError: if ``numtaps`` is not an int.
        ValueError: if ``numtaps`` or ``width`` is out of range.

    Example:
        >>> round(kaiser_attenuation(12, 0.25), 2)
        27.69

    Source of the formula: Kaiser 1974, see :func:`kaiser_beta`; as scipy.signal.kaiser_atten.
    """
    numtaps = as_count("numtaps", numtaps, 1)
    return _kaiser_attenuation(numtaps, _as_real("width", width))


def _kaiser_attenuation(numtaps: int, width: float) -> float:
    return 2.285 * (numtaps - 1) * math.pi * width + 7.95


def kaiser_window(numtaps: int, beta: float) -> Taps:
    """The symmetric Kaiser window: scipy's ``kaiser(numtaps, beta)``.

    Args:
        numtaps: number of taps, >= 1.
        beta: shape of the window, in [0, 700]; 0 is a window of ones.

    Raises:
        TypeError: if ``numtaps`` is not an int.
        ValueError: if ``numtaps`` or ``beta`` is out of range.

    Example:
        >>> [round(tap, 4) for tap in kaiser_window(3, 2.0)]
        [0.4387, 1.0, 0.4387]

    Source of the formula: Kaiser 1974, see :func:`kaiser_beta`.
    """
    numtaps = as_count("numtaps", numtaps, 1)
    beta = _as_real("beta", beta)
    if beta > LARGEST_BETA:
        raise ValueError(f"beta must be <= {LARGEST_BETA:g}, got {shown(beta)}")
    whole = _bessel_i0(beta)

    def value(i: int) -> float:
        t = 2 * i / (numtaps - 1) - 1 if numtaps > 1 else 0.0
        return _bessel_i0(beta * math.sqrt(max(0.0, 1 - t * t))) / whole

    return _mirrored([value(i) for i in range((numtaps + 1) // 2)], numtaps)


def kaiser_lowpass(numtaps: int, cutoff: float, beta: float) -> Taps:
    """A Kaiser-windowed sinc that sums to 1: scipy's ``firwin(numtaps, cutoff,
    window=("kaiser", beta))``.

    Args:
        numtaps: number of taps, >= 1.
        cutoff: frequency where the response is one half, in units of the Nyquist frequency, in
            (0, 1).
        beta: shape of the window, in [0, 700]; :func:`kaiser_beta` derives it from an attenuation.

    Raises:
        TypeError: if ``numtaps`` is not an int.
        ValueError: if ``numtaps``, ``cutoff`` or ``beta`` is out of range.

    Example:
        >>> [round(tap, 4) for tap in kaiser_lowpass(4, 0.5, 2.0)]
        [0.0683, 0.4317, 0.4317, 0.0683]

    Source of the formula: windowed-sinc design in the convention of scipy.signal.firwin.
    """
    numtaps = as_count("numtaps", numtaps, 1)
    if not 0.0 < to_float(cutoff) < 1.0:
        raise ValueError(f"cutoff must lie in (0, 1), 1 the Nyquist frequency, got {shown(cutoff)}")
    return _windowed_sinc(numtaps, to_float(cutoff), beta)


def _windowed_sinc(numtaps: int, cutoff: float, beta: float) -> Taps:
    window = kaiser_window(numtaps, beta)
    half = range((numtaps + 1) // 2)
    values = [window[i] * _sinc(cutoff * (i - (numtaps - 1) / 2)) for i in half]
    taps = _mirrored(values, numtaps)
    total = math.fsum(taps)
    return tuple(tap / total for tap in taps)


def design_lowpass(numtaps: int, cutoff: float, width: float, sampling_rate: float) -> Taps:
    """The low-pass taps of StyleGAN3: scipy's ``firwin(numtaps, cutoff, width=width,
    fs=sampling_rate)``.

    A Kaiser-windowed sinc whose window is as steep as ``width`` asks for with so many taps.

    Args:
        numtaps: number of taps, >= 1.
        cutoff: frequency where the response is one half, in ``(0, sampling_rate / 2)``.
        width: of the transition from the pass band to the stop band, >= 0; StyleGAN3's is twice
            its "half width".
        sampling_rate: of the signal that the taps filter. ``cutoff`` and ``width`` have its unit.

    Returns:
        Symmetric taps that sum to 1.

    Raises:
        TypeError: if ``numtaps`` is not an int.
        ValueError: if an argument is out of range, or ``width`` so large that the window's beta is
            above 700.

    Example:
        The first filter of a layer that samples at 16 and activates at 32:

        >>> [round(tap, 4) for tap in design_lowpass(12, 8.0, 6.0, 32.0)[:6]]
        [0.0077, 0.0185, -0.0366, -0.0682, 0.1356, 0.443]

    Source of the formula: Karras et al., Alias-Free Generative Adversarial Networks, 2021.
    """
    numtaps, cutoff, beta = _lowpass_shape(numtaps, cutoff, width, sampling_rate)
    return _windowed_sinc(numtaps, cutoff, beta)


def design_radial_lowpass(
    numtaps: int, cutoff: float, width: float, sampling_rate: float
) -> tuple[Taps, ...]:
    """The radially symmetric low-pass kernel of StyleGAN3-R: a jinc under a Kaiser window.

    With ``r`` the distance from the middle in units of ``1 / sampling_rate``, the kernel is
    ``J1(2 pi cutoff r) / (pi r)`` times the Kaiser window of each axis, divided by its sum. ``J1``
    is the Bessel function of the first kind. An odd ``numtaps`` has a tap at ``r = 0``, where the
    limit of the quotient, ``cutoff``, is taken. StyleGAN3's code divides zero by zero there.

    Args:
        numtaps: number of taps along each axis, >= 1.
        cutoff, width, sampling_rate: as for :func:`design_lowpass`.

    Returns:
        Rows ``[numtaps][numtaps]`` that sum to 1. Their response is nearly the same in all
        directions, and no outer product gives it.

    Raises:
        TypeError, ValueError: as :func:`design_lowpass`.

    Example:
        >>> rows = design_radial_lowpass(4, 8.0, 6.0, 32.0)
        >>> [round(tap, 4) for tap in rows[0]], [round(tap, 4) for tap in rows[1]]
        ([0.0174, 0.0565, 0.0565, 0.0174], [0.0565, 0.1195, 0.1195, 0.0565])

    Source of the formula: Karras et al., Alias-Free Generative Adversarial Networks, 2021,
    appendix C.
    """
    numtaps, cutoff, beta = _lowpass_shape(numtaps, cutoff, width, sampling_rate)
    window = kaiser_window(numtaps, beta)
    largest = max(window)
    window = tuple(value / largest for value in window)  # so that not all products underflow

    @functools.cache
    def jinc(x: float, y: float) -> float:  # [taps] from the middle
        r = math.hypot(x, y)
        return _bessel_j1(math.pi * cutoff * r) / (math.pi * r) if r else cutoff / 2

    away = [abs(i - (numtaps - 1) / 2) for i in range(numtaps)]
    rows = [
        [a * b * jinc(*sorted((x, y))) for b, x in zip(window, away, strict=True)]
        for a, y in zip(window, away, strict=True)
    ]
    total = math.fsum(tap for row in rows for tap in row)
    return tuple(tuple(tap / total for tap in row) for row in rows)


def _lowpass_shape(
    numtaps: int, cutoff: float, width: float, sampling_rate: float
) -> tuple[int, float, float]:
    """The taps' number, the cutoff in units of the Nyquist frequency, and the window's beta."""
    rate, edge = to_float(sampling_rate), to_float(cutoff)
    if not 0.0 < rate < math.inf:
        raise ValueError(f"sampling_rate must be > 0 and finite, got {shown(sampling_rate)}")
    nyquist = rate / 2
    if not 0.0 < edge < nyquist:
        raise ValueError(
            f"cutoff must lie in (0, sampling_rate / 2), here (0, {nyquist:g}), got {shown(cutoff)}"
        )
    numtaps = as_count("numtaps", numtaps, 1)
    attenuation = _kaiser_attenuation(numtaps, _as_real("width", width) / nyquist)
    return numtaps, edge / nyquist, _beta("width", width, numtaps, attenuation)


def _beta(name: str, value: Any, numtaps: int, attenuation: float) -> float:
    """The window's beta; the argument that asks for the attenuation is named where it is too much.

    Raises:
        ValueError: if the beta is above the largest.
    """
    beta = _kaiser_beta(attenuation)
    if beta > LARGEST_BETA:
        raise ValueError(
            f"{name} must give a Kaiser window of beta <= {LARGEST_BETA:g}, got {shown(value)}, "
            f"which gives beta={beta:.6g} with numtaps={numtaps}"
        )
    return beta


def kaiser_sinc(cutoff: float, half_width: float, numtaps: int) -> Taps:
    """The low-pass taps of BigVGAN and of alias-free-torch, their ``kaiser_sinc_filter1d``.

    A Kaiser-windowed sinc of unit sum, of the attenuation that Kaiser's formula gives for
    ``numtaps // 2`` taps and the transition ``4 * half_width``.

    Args:
        cutoff: frequency where the response is one half, in cycles per sample, in (0, 0.5]. For a
            ratio r it is ``0.5 / r``.
        half_width: half of the transition from the pass band to the stop band, in cycles per
            sample, >= 0. For a ratio r it is ``0.6 / r``.
        numtaps: number of taps, >= 1.

    Returns:
        Symmetric taps that sum to 1.

    Raises:
        TypeError: if ``numtaps`` is not an int.
        ValueError: if an argument is out of range, or ``half_width`` so large that the window's
            beta is above 700.

    Example:
        >>> [round(tap, 8) for tap in kaiser_sinc(0.25, 0.3, 12)[:6]]
        [0.00202897, 0.00938946, -0.02554346, -0.05765738, 0.12857261, 0.4432098]

    Source of the formula: Lee et al., BigVGAN: A Universal Neural Vocoder, 2023; the length of the
    window as in its code.
    """
    numtaps = as_count("numtaps", numtaps, 1)
    if not 0.0 < to_float(cutoff) <= 0.5:
        raise ValueError(f"cutoff must lie in (0, 0.5] cycles per sample, got {shown(cutoff)}")
    half = _as_real("half_width", half_width)
    attenuation = _kaiser_attenuation(max(1, numtaps // 2), 4 * half)
    beta = _beta("half_width", half_width, numtaps, attenuation)
    return _windowed_sinc(numtaps, 2 * to_float(cutoff), beta)


def design_rational_taps(up: int, down: int) -> Taps:
    """The taps of scipy's ``resample_poly(x, up, down)`` for the rate ``up / down``.

    With the fraction in lowest terms and ``m = max(up, down)`` these are ``20 * m + 1`` taps of
    :func:`kaiser_lowpass` with the cutoff ``1 / m`` and the beta 5. For equal rates it is the
    single tap 1.

    Raises:
        TypeError: if ``up`` or ``down`` is not an int.
        ValueError: if one is below 1.

    Example:
        >>> len(design_rational_taps(48000, 44100))  # of the rate 160 / 147
        3201

    Source of the formula: scipy.signal.resample_poly, its default window.
    """
    up = as_count("up", up, 1)
    down = as_count("down", down, 1)
    largest = max(up, down) // math.gcd(up, down)
    return kaiser_lowpass(20 * largest + 1, 1.0 / largest, 5.0) if largest > 1 else (1.0,)


def _mirrored(half: Sequence[float], numtaps: int) -> Taps:
    """Symmetric values, of their first half: symmetric to the last bit."""
    return (*half, *half[: numtaps // 2][::-1])


def _bessel_i0(x: float) -> float:
    """The modified Bessel function of the first kind, order 0, by its power series."""
    total = term = 1.0
    k = 0
    while term > 1e-17 * total:
        k += 1
        term *= (x / (2 * k)) ** 2
        total += term
    return total


def _bessel_j1(x: float) -> float:
    """The Bessel function of the first kind, order 1: the mean of ``cos(t - x sin t)``.

    The mean is over a period of ``t``. With more than ``x`` places the sum over equal steps differs
    from it by less than the rounding.
    """
    places = 2 * math.ceil(x) + 40
    steps = (2 * math.pi * i / places for i in range(places))
    return math.fsum(math.cos(t - x * math.sin(t)) for t in steps) / places


def design_resample_taps(
    factor: int, numtaps: int | None = None, attenuation: float = 50.0
) -> Taps:
    """Low-pass taps for up- or downsampling by any factor, with phases that sum alike.

    1. Design :func:`kaiser_lowpass` with the cutoff ``1 / factor``.
    2. Divide each phase ``taps[p::factor]`` by ``factor`` times its sum, so that a flat image
       stays flat when it is upsampled. This moves a tap by far less than the ripple that
       ``attenuation`` allows.

    The response is one half at the new Nyquist frequency, as interpolation wants it. To suppress
    aliasing when downsampling, put the edge of the stop band there instead, with more taps:
    ``kaiser_lowpass(16 * factor + factor % 2, 0.8 / factor, kaiser_beta(50.0))``.

    The layers keep the image in place where the number of taps is even for an even factor and odd
    for an odd one, as the default is. Any other number is allowed, and moves the image: by half a
    pixel of the larger image when it is upsampled, and again when it is downsampled. The layers'
    property ``shift`` gives the way.

    Args:
        factor: the resampling factor, >= 1.
        numtaps: number of taps, >= factor; default ``6 * factor + factor % 2``.
        attenuation: stop-band attenuation of the window in dB, >= 0 and, as the window's beta is at
            most 700, <= 6360.

    Returns:
        Symmetric taps that sum to 1; for factor 1 the single tap 1, whatever ``numtaps`` is.

    Raises:
        TypeError: if ``factor`` or ``numtaps`` is not an int.
        ValueError: if an argument is out of range.

    Example:
        >>> taps = design_resample_taps(3)
        >>> [round(sum(taps[p::3]), 12) for p in range(3)]
        [0.333333333333, 0.333333333333, 0.333333333333]
    """
    factor = as_count("factor", factor, 1)
    numtaps = 6 * factor + factor % 2 if numtaps is None else numtaps
    numtaps = as_count("numtaps", numtaps, factor)
    asked = _as_real("attenuation", attenuation, " dB")
    beta = _beta("attenuation", attenuation, numtaps, asked)
    if factor == 1:
        return (1.0,)
    taps = kaiser_lowpass(numtaps, 1.0 / factor, beta)
    sums = [math.fsum(taps[phase::factor]) for phase in range(factor)]
    return tuple(tap / (factor * sums[i % factor]) for i, tap in enumerate(taps))


def _as_real(name: str, value: Any, unit: str = "") -> float:
    number = to_float(value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} must be >= 0{unit} and finite, got {shown(value)}")
    return number


# The check


def phases_sum_alike(taps: Any, factor: int | Sequence[int]) -> bool:
    """Whether upsampling a flat image by ``factor`` gives a flat image.

    Output sample ``n`` sees only the taps of phase ``n mod factor``; all phases must have one
    sum. ``[1, 3, 3, 1]`` does at 2 and does not at 3. Sums are alike that differ by at most 1e-4 of
    the largest magnitude of one.

    Args:
        taps: as a (nested) list or tuple, a NumPy array or a tensor; ``[taps]``, which serve both
            axes, or ``[kh, kw]``. They may have any sum.
        factor: an int >= 1, or two of them, ``(x, y)``.

    Raises:
        TypeError: if ``taps`` is not made of real numbers, or ``factor`` is not made of ints.
        ValueError: if ``taps`` is of another rank, is empty or has a tap that is not finite; or
            ``factor`` is out of range, or is not one or two ints.

    Example:
        >>> phases_sum_alike([1, 3, 3, 1], 2), phases_sum_alike([1, 3, 3, 1], 3)
        (True, False)
    """
    rows, has_rows = _as_rows("taps", taps)
    factors = factor if isinstance(factor, (tuple, list)) else (factor, factor)
    if len(factors) != 2:
        raise ValueError(f"factor must be an int or 2 ints (x, y), got {shown(factor)}")
    x, y = (as_count("factor", value, 1) for value in factors)
    return _sum_alike(rows, x, y) if has_rows else all(_sum_alike(rows, f, 1) for f in (x, y))


def _sum_alike(rows: list[list[float]], factor_x: int, factor_y: int) -> bool:
    height, width = len(rows), len(rows[0])
    sums = [
        math.fsum(tap for row in rows[y::factor_y] for tap in row[x::factor_x])
        for y in range(min(factor_y, height))
        for x in range(min(factor_x, width))
    ]
    if factor_x > width or factor_y > height:
        sums.append(0.0)  # of the phases that have no taps
    return max(sums) - min(sums) <= 1e-4 * max(map(abs, sums))
