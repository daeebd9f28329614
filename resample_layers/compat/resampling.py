# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA's conventions of the op, which mmcv took over under other names.

``padding`` is an int, ``[x, y]`` (each for both sides) or ``[x0, x1, y0, y1]``; ``flip_filter``
False is a true convolution, True a correlation; ``gain`` scales the result once, whether the
filter is ``[kh, kw]`` or separable ``[taps]``; no filter is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import geometry, ops
from ..ops.arguments import Pads, as_factors
from ..ops.modes import is_tracing
from ..values import shown
from .activation import check_bias
from .arguments import (
    as_flag,
    as_number,
    as_paddings,
    as_rate,
    check_device,
    check_filter,
    check_images,
    tap_counts,
)

Rate = int | Sequence[int]  # one for both axes, or [x, y]
Padding = int | Sequence[int]


class Call:
    """One call: the arguments checked, under the names of the original, and the op at its end."""

    def __init__(
        self,
        names: tuple[str, str],  # of input and filter, for errors
        input: Tensor,  # [N, C, H, W]
        filter: Tensor | None,  # [kh, kw] or [taps]
        padding: Padding,
        flip_filter: bool,
        gain: float,
    ) -> None:
        check_images(names[0], input)
        if filter is None:
            filter = input.new_ones(1, dtype=torch.float32)
        check_filter(names[1], filter)
        check_device(names, input, filter)
        self.names = names
        self.input = input
        is_flipped = as_flag("flip_filter", flip_filter)
        self.filter = filter.flip(tuple(range(filter.dim()))) if is_flipped else filter
        self.padding = as_paddings(padding)
        self.gain = as_number("gain", gain)

    def plain(self, up: Rate, down: Rate) -> Tensor:
        """The op."""
        return self._run(up, down, (0, 0, 0, 0), 1.0)

    def filter2d(self) -> Tensor:
        """``padding`` on top of what keeps the size."""
        fw, fh = tap_counts(self.filter)
        return self._run(1, 1, (fw // 2, (fw - 1) // 2, fh // 2, (fh - 1) // 2), 1.0)

    def upsample2d(self, up: Rate) -> Tensor:
        """``padding`` on top of what makes the size ``up`` times as large."""
        up_x, up_y = as_factors("up", up)
        fw, fh = tap_counts(self.filter)
        pads = (*geometry.upsample_pad(fw, up_x), *geometry.upsample_pad(fh, up_y))
        return self._run(up, 1, pads, float(up_x * up_y))

    def downsample2d(self, down: Rate) -> Tensor:
        """``padding`` on top of what makes the size ``1 / down``."""
        down_x, down_y = as_factors("down", down)
        fw, fh = tap_counts(self.filter)
        pads = (*geometry.downsample_pad(fw, down_x), *geometry.downsample_pad(fh, down_y))
        return self._run(1, down, pads, 1.0)

    def _run(self, up: Rate, down: Rate, base: Pads, gain: float) -> Tensor:
        up_x, up_y = as_factors("up", up)
        down_x, down_y = as_factors("down", down)
        x0, x1, y0, y1 = pad = [extra + own for extra, own in zip(self.padding, base, strict=True)]
        (h, w), (fw, fh) = self.input.shape[2:], tap_counts(self.filter)
        out_h = geometry.output_size(h, up_y, down_y, y0, y1, fh)
        out_w = geometry.output_size(w, up_x, down_x, x0, x1, fw)
        if not is_tracing() and (out_h < 1 or out_w < 1):  # traced: comparing would fix the sizes
            raise ValueError(
                f"output must be at least 1x1 (height x width), got {out_h}x{out_w} from "
                f"{self.names[0]} {h}x{w}, {self.names[1]} {fh}x{fw}, up={up}, down={down}, "
                f"padding={self.padding}"
            )
        gain = gain * self.gain
        taps = _wide(self.filter, self.input)
        kernel: Tensor | tuple[Tensor, Tensor] = taps
        if gain != 1:
            kernel = taps * gain if taps.dim() == 2 else (taps * gain, taps)
        return ops.upfirdn2d(self.input, kernel, up, down, pad)


def filtered_lrelu(
    names: tuple[str, str, str, str],  # of input, the two filters and the bias, for errors
    input: Tensor,  # [N, C, H, W]
    up_filter: Tensor | None,  # [kh, kw] or [taps]
    down_filter: Tensor | None,
    bias: Tensor | None,  # [C]
    up: int,
    down: int,
    padding: Padding,
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> Tensor:
    """Bias, the op with ``up``, leaky ReLU, gain, clamp, the op with ``down``.

    The first filter is scaled by ``up ** 2``: taps ``[taps]``, which serve both axes, by ``up``.

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """
    x, fu, fd, b = names
    check_images(x, input)
    flip_filter = as_flag("flip_filter", flip_filter)
    kernels = []
    for name, taps in ((fu, up_filter), (fd, down_filter)):
        if taps is not None:
            check_filter(name, taps)
            check_device((x, name), input, taps)
            taps = taps.flip(tuple(range(taps.dim()))) if flip_filter else taps
        kernels.append(taps)
    if bias is not None:
        check_bias(x, b, input, bias, 1)
    up, down = as_rate("up", up), as_rate("down", down)
    pads = x0, x1, y0, y1 = as_paddings(padding)
    if (gain := as_number("gain", gain)) <= 0:
        raise ValueError(f"gain must be > 0, got gain={shown(gain)}")
    if (slope := as_number("slope", slope)) < 0:
        raise ValueError(f"slope must be >= 0, got slope={shown(slope)}")
    limit = math.inf if clamp is None else as_number("clamp", clamp, infinite=True)
    if limit <= 0:
        raise ValueError(f"clamp must be > 0 or None, got clamp={shown(clamp)}")

    (kw, kh), (fw, fh) = ((1, 1) if f is None else tap_counts(f) for f in kernels)
    h, w = input.shape[2:]
    sizes = [
        geometry.output_size(h, up, 1, y0, y1, kh),
        geometry.output_size(w, up, 1, x0, x1, kw),
    ]
    out = [
        geometry.output_size(side, 1, down, 0, 0, k)
        for side, k in zip(sizes, (fh, fw), strict=True)
    ]
    if not is_tracing() and min(*sizes, *out) < 1:  # traced: comparing would fix the sizes
        raise ValueError(
            f"output must be at least 1x1 (height x width), got {out[0]}x{out[1]} from "
            f"{x} {h}x{w}, {fu} {kh}x{kw}, {fd} {fh}x{fw}, up={up}, down={down}, padding={pads}"
        )
    first, second = kernels
    if up > 1:
        first = _wide(input.new_ones(1) if first is None else first, input)
        first = first * (up if first.dim() == 1 else up**2)
    return ops.filtered_lrelu(
        input, first, second, bias, up, down, pads, slope, gain,
        None if limit == math.inf else limit,
    )  # fmt: skip


def _wide(filter: Tensor, input: Tensor) -> Tensor:
    """A filter in the dtype that the op sums in, before it is scaled."""
    wide = torch.float64 in (input.dtype, filter.dtype)
    return filter.to(torch.float64 if wide else torch.float32)
