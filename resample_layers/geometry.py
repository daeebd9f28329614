# SPDX-License-Identifier: BSD-3-Clause
"""Every integer formula of the op, derived once. Sizes may be symbolic.

This module imports no torch. The op along one axis, with ``k`` taps and indices in samples, is::

    u[a]   = input[a / up]  where up divides a and a / up lies inside, else 0
    out[y] = sum_i kernel[i] * u[y * down + (k - 1 - i) - pad0]

Zeros follow each sample, the last one too, so ``u`` has ``size * up`` samples before padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


def output_size(size: int, up: int, down: int, pad0: int, pad1: int, taps: int) -> int:
    """Number of outputs along one axis.

    The padded, zero-inserted input has ``size * up + pad0 + pad1`` samples; the kernel fits in
    ``that - taps + 1`` places, of which every ``down``-th is kept, starting with the first.
    """
    return (size * up + pad0 + pad1 - taps) // down + 1


def output_sizes(
    in_size: Sequence[int],  # (h, w)
    up: tuple[int, int],  # (x, y)
    down: tuple[int, int],
    pad: tuple[int, int, int, int],  # (x0, x1, y0, y1)
    kernel_size: Sequence[int],  # (kh, kw)
) -> tuple[int, int]:
    """:func:`output_size` of both axes, as (out_h, out_w)."""
    return (
        output_size(in_size[0], up[1], down[1], pad[2], pad[3], kernel_size[0]),
        output_size(in_size[1], up[0], down[0], pad[0], pad[1], kernel_size[1]),
    )


def adjoint_pad(size: int, out: int, up: int, down: int, pad0: int, taps: int) -> tuple[int, int]:
    """Pads of the op that maps the gradient of ``out`` samples to the gradient of ``size`` samples.

    The transpose of (up, down, kernel) is the op with (down, up, flipped kernel). Output ``y``
    reads input ``x`` through tap ``i`` where ``x * up = y * down + (k - 1 - i) - pad0``. Seen
    from ``x`` with the flipped tap ``j = k - 1 - i``: ``y * down = x * up + (k - 1 - j) - g0``
    with ``g0 = k - 1 - pad0``. The second pad makes the size come out:
    ``(out * down + g0 + g1 - k) // up + 1 = size`` for the smallest numerator, so
    ``g1 = (size - 1) * up + k - out * down - g0 = size * up - out * down + pad0 - up + 1``.
    """
    return taps - pad0 - 1, size * up - out * down + pad0 - up + 1


def adjoint_pads(
    in_size: Sequence[int],  # (h, w)
    out_size: Sequence[int],  # (out_h, out_w)
    up: tuple[int, int],  # (x, y)
    down: tuple[int, int],
    pad: tuple[int, int, int, int],  # (x0, x1, y0, y1)
    kernel_size: Sequence[int],  # (kh, kw)
) -> tuple[int, int, int, int]:
    """:func:`adjoint_pad` of both axes, as (x0, x1, y0, y1)."""
    return (
        *adjoint_pad(in_size[1], out_size[1], up[0], down[0], pad[0], kernel_size[1]),
        *adjoint_pad(in_size[0], out_size[0], up[1], down[1], pad[2], kernel_size[0]),
    )


class Tap(NamedTuple):
    """A tap that one phase uses: for output ``t`` it multiplies input ``offset + stride * t``."""

    position: int
    """Which of the kernel's taps it is."""
    offset: int
    """In input samples; a negative one lies in the padding."""


class Polyphase(NamedTuple):
    """How to compute one axis without multiplying an inserted zero.

    Output ``y = r + phases * t`` (phase ``r``, step ``t``) reads
    ``u[y * down + (k - 1 - i) - pad0]``. With ``g = gcd(up, down)`` and ``phases = up / g``, a
    step moves that index by ``phases * down = up * (down / g)``: by ``stride = down / g`` input
    samples, whatever the phase. So phase ``r`` uses the taps ``i`` for which ``up`` divides
    ``r * down + (k - 1 - i) - pad0``, and the quotient is their offset at ``t = 0``.
    """

    phases: int
    """How many groups of outputs there are, each with taps of its own."""
    stride: int
    """Input samples that a step moves by."""
    taps: tuple[tuple[Tap, ...], ...]
    """The taps of each phase."""
    before: int
    """Zeros that are needed before the first input sample."""
    after: int
    """Zeros that are needed after the last input sample, whatever the size."""

    def steps(self, out: int) -> int:
        """Steps that cover ``out`` outputs; at most ``phases - 1`` outputs too many."""
        return (out - 1) // self.phases + 1

    def reach(self, tap: Tap, size: int, steps: int) -> tuple[int, int]:
        """The steps ``[first, last)`` of ``steps`` at which ``tap`` reads one of ``size`` samples.

        It reads sample ``offset + stride * t``, hence ``-offset <= stride * t < size - offset``.
        """
        first = min(max(0, -(tap.offset // self.stride)), steps)
        last = min(steps, (size - 1 - tap.offset) // self.stride + 1)
        return first, max(first, last)


def polyphase(up: int, down: int, pad0: int, pad1: int, taps: int) -> Polyphase:
    """The polyphase plan of one axis. Independent of the input's size.

    ``after``: the last step starts at ``stride * (steps - 1)``, and
    ``stride * (steps - 1) <= stride * (out - 1) / phases <= size + (pad0 + pad1 - taps) / up``,
    so no tap reads beyond ``size + (pad0 + pad1 - taps) // up + largest offset``.
    """
    divisor = math.gcd(up, down)
    phases, stride = up // divisor, down // divisor
    if phases > MOST_PHASES:
        table = _sparse_table(up, down, pad0, taps)
    else:
        table = tuple(
            tuple(
                Tap(i, (phase * down + taps - 1 - i - pad0) // up)
                for i in range(taps)
                if (phase * down + taps - 1 - i - pad0) % up == 0
            )
            for phase in range(phases)
        )
    offsets = [tap.offset for row in table for tap in row] or [0]  # no tap meets a sample: zeros
    before = max(0, -min(offsets))
    after = max(0, max(offsets) + 1 + (pad0 + pad1 - taps) // up)
    return Polyphase(phases, stride, table, before, after)


MOST_PHASES = 1024  # that are searched for their taps one by one


def _sparse_table(up: int, down: int, pad0: int, taps: int) -> tuple[tuple[Tap, ...], ...]:
    """The taps of each phase, found from the taps: most of very many phases have none.

    Tap ``i`` belongs to the phase ``r`` with ``r * down = -m`` modulo ``up``, where
    ``m = k - 1 - i - pad0``: to none where ``g = gcd(up, down)`` does not divide ``m``, else to
    ``-m / g`` times the inverse of ``down / g`` modulo ``up / g``.
    """
    divisor = math.gcd(up, down)
    phases = up // divisor
    inverse = pow(down // divisor, -1, phases)
    table: list[tuple[Tap, ...]] = [()] * phases
    for i in range(taps):
        m = taps - 1 - i - pad0
        if m % divisor == 0:
            phase = -(m // divisor) * inverse % phases
            table[phase] = (*table[phase], Tap(i, (phase * down + m) // up))
    return tuple(table)


def may_miss(up: int, pad0: int, pad1: int, taps: int) -> bool:
    """Whether the kernel may lie where it meets no sample: in the padding, or between samples.

    The first output reads up to ``u[taps - 1 - pad0]``, and the first sample stands at 0. The last
    output reads from ``u[size * up + pad1 - taps]`` at most, and the last sample stands at
    ``(size - 1) * up``. Between two samples there are ``up - 1`` zeros.
    """
    return pad0 >= taps or pad1 + up > taps or up > taps


def upsample_pad(taps: int, factor: int) -> tuple[int, int]:
    """Pads for ``size -> size * factor``: ``p0 + p1 = taps - 1``.

    Split so that the image stays centred: half of the ``taps - factor`` on each side, the odd one
    before; and the ``factor - 1`` zeros that follow the last sample are balanced by as many
    before the first.
    """
    extra = taps - factor
    return (extra + 1) // 2 + factor - 1, extra // 2


def downsample_pad(taps: int, factor: int, ceil_mode: bool = False) -> tuple[int, int]:
    """Pads for ``size -> size // factor``: ``p0 + p1 = taps - factor``, the odd one before.

    With ``ceil_mode`` for ``size -> ceil(size / factor)``. Output ``n`` starts to read at
    ``n * factor - p0``, so the first pad and the places of the samples stay. With
    ``p0 + p1 = taps - 1`` the output has ``(size - 1) // factor + 1`` samples, which is
    ``ceil(size / factor)``: the pads do not depend on the size. Where ``factor`` divides the
    size, the last ``factor - 1`` samples of the second pad are not read. At factor 2 the pads are
    ``((taps - 1) // 2, taps // 2)``.
    """
    extra = taps - factor
    return (extra + 1) // 2, extra // 2 + (factor - 1 if ceil_mode else 0)


def rational_pad(taps: int) -> tuple[int, int]:
    """Pads for ``size -> ceil(size * up / down)``, as scipy's ``resample_poly`` has them.

    Output ``n`` lies at ``u[n * down]``, so the first one at the first sample: what it reads, up to
    ``u[taps - 1 - p0]``, has its middle there, the one before the middle where ``taps`` is even.
    Hence ``p0 = taps - 1 - (taps - 1) // 2``. With ``p0 + p1 = taps - 1`` the output has
    ``(size * up - 1) // down + 1`` samples.
    """
    return taps // 2, (taps - 1) // 2


def filtered_pad(up_taps: int, down_taps: int, up: int, down: int) -> tuple[int, int]:
    """Pads of the first of two filters around an activation, for ``size -> size * up // down``.

    The second filter has no pads. The first returns ``size * up + p0 + p1 - up_taps + 1`` samples,
    so ``p0 + p1 = up_taps + down_taps - 1 - down`` makes that size. Both filters as one have
    ``k = up_taps + down_taps - 1`` taps, and by :func:`shift` the image stays in place where
    ``p0 = (k - 1 + up - down) / 2``; half a sample, if there is one, goes before it.
    """
    before = (up_taps + down_taps - 1 + up - down) // 2
    return before, up_taps + down_taps - 1 - down - before


def smooth_pad(taps: int, up: int, down: int, kernel_size: int, after: bool) -> tuple[int, int]:
    """Pads of a smoothing filter that stands beside a convolution of ``kernel_size``.

    ``after`` a transposed convolution of stride ``up`` without padding, whose output has
    ``(size - 1) * up + kernel_size`` samples; the result has ``size * up``, hence
    ``p0 + p1 = taps - kernel_size + up - 1``.
    Before a convolution of stride ``down`` without padding; its result has ``size // down``
    samples where ``p0 + p1 = (taps - down) + (kernel_size - 1)``. With ``down`` 1 it keeps the
    size.
    """
    if after:
        extra = (taps - up) - (kernel_size - 1)
        return (extra + 1) // 2 + up - 1, extra // 2 + up - 1
    extra = (taps - down) + (kernel_size - 1)
    return (extra + 1) // 2, extra // 2


def shift(taps: int, up: int, down: int, pad0: int, centroid: float = 0.0) -> float:
    """Where samples lie: output ``n`` at ``(n + 0.5) * down / up - 0.5 + shift`` of the input.

    Pixels are areas, so that the first formula without the shift maps both ends of the image to
    both ends: 0 is the centre of the first pixel, -0.5 its edge.

    Output ``n`` reads ``u[n * down - pad0]`` to ``u[n * down - pad0 + taps - 1]``. The middle of
    these is ``n * down - pad0 + (taps - 1) / 2``. ``centroid`` says how far the weight of the taps
    lies behind the middle tap, ``sum_i kernel[i] * (i - (taps - 1) / 2)`` for a kernel with sum 1;
    it is 0 for symmetric taps. A later tap meets an earlier sample, so the weight of what is read
    lies at ``n * down - pad0 + (taps - 1) / 2 - centroid`` of ``u``, and input sample ``x`` lies at
    ``x * up`` of it. Hence the shift is ``((taps - 1) / 2 - centroid - pad0) / up`` less
    ``0.5 * down / up - 0.5``.
    """
    return (taps - 1 - 2 * pad0 + up - down - 2 * centroid) / (2 * up)


def row_range(
    size: int, first: int, last: int, up: int, down: int, pad0: int, taps: int
) -> tuple[int, int, int, int]:
    """Input samples ``[a, b)`` that outputs ``[first, last)`` read, and the pads that go with them.

    Output ``first`` starts to read at ``u[first * down - pad0]`` and output ``last - 1`` ends at
    ``u[(last - 1) * down + taps - 1 - pad0]``; samples stand at multiples of ``up``. The op over
    ``input[a:b]`` with the returned pads gives exactly ``out[first:last]``.
    """
    a = min(max(-(-(first * down - pad0) // up), 0), size)
    b = min(max(((last - 1) * down + taps - 1 - pad0) // up + 1, a), size)
    new_pad0 = pad0 - first * down + a * up
    new_pad1 = (last - first - 1) * down + taps - (b - a) * up - new_pad0
    return a, b, new_pad0, new_pad1


def border(pad0: int, pad1: int, up: int) -> tuple[int, int]:
    """Input samples that a boundary mode must supply before and after the image.

    Pads count on the upsampled grid. The ``m``-th sample before the image (``m >= 1``) stands at
    ``-m * up`` and is needed where that is ``>= -pad0``; the ``m``-th after it (``m >= 0``) stands
    ``m * up`` behind the end and is needed where that is ``< pad1``.
    """
    return max(0, pad0 // up), max(0, -(-pad1 // up))
