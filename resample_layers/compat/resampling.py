# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA's conventions of the op, which mmcv took over under other names.

``padding`` is an int, ``[x, y]`` (each for both sides) or ``[x0, x1, y0, y1]``; ``flip_filter``
False is a true convolution, True a correlation; ``gain`` scales the result once, whether the
filter is ``[kh, kw]`` or separable ``[taps]``; no filter is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import geometry, ops
from ..ops.arguments import Pads, as_factors
from ..ops.modes import is_tracing
from .arguments import (
    as_number,
    as_paddings,
    check_device,
    check_filter,
    check_images,
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
        self.filter = filter.flip(tuple(range(filter.dim()))) if flip_filter else filter
        self.padding = as_paddings(padding)
        self.gain = as_number("gain", gain)

    def plain(self, up: Rate, down: Rate) -> Tensor:
        """The op."""
        return self._run(up, down, (0, 0, 0, 0), 1.0)

    def filter2d(self) -> Tensor:
        """``padding`` on top of what keeps the size."""
        fw, fh = self.filter.shape[-1], self.filter.shape[0]
        return self._run(1, 1, (fw // 2, (fw - 1) // 2, fh // 2, (fh - 1) // 2), 1.0)

    def upsample2d(self, up: Rate) -> Tensor:
        """``padding`` on top of what makes the size ``up`` times as large."""
        up_x, up_y = as_factors("up", up)
        fw, fh = self.filter.shape[-1], self.filter.shape[0]
        pads = (*geometry.upsample_pad(fw, up_x), *geometry.upsample_pad(fh, up_y))
        return self._run(up, 1, pads, float(up_x * up_y))

    def downsample2d(self, down: Rate) -> Tensor:
        """``padding`` on top of what makes the size ``1 / down``."""
        down_x, down_y = as_factors("down", down)
        fw, fh = self.filter.shape[-1], self.filter.shape[0]
        pads = (*geometry.downsample_pad(fw, down_x), *geometry.downsample_pad(fh, down_y))
        return self._run(1, down, pads, 1.0)

    def _run(self, up: Rate, down: Rate, base: Pads, gain: float) -> Tensor:
        up_x, up_y = as_factors("up", up)
        down_x, down_y = as_factors("down", down)
        x0, x1, y0, y1 = pad = [extra + own for extra, own in zip(self.padding, base, strict=True)]
        (h, w), fw, fh = self.input.shape[2:], self.filter.shape[-1], self.filter.shape[0]
        out_h = geometry.output_size(h, up_y, down_y, y0, y1, fh)
        out_w = geometry.output_size(w, up_x, down_x, x0, x1, fw)
        if not is_tracing() and (out_h < 1 or out_w < 1):  # traced: comparing would fix the sizes
            raise ValueError(
                f"output must be at least 1x1 (height x width), got {out_h}x{out_w} from "
                f"{self.names[0]} {h}x{w}, {self.names[1]} {fh}x{fw}, up={up}, down={down}, "
                f"padding={self.padding}"
            )
        gain = gain * self.gain
        wide = torch.float64 in (self.input.dtype, self.filter.dtype)
        taps = self.filter.to(torch.float64 if wide else torch.float32)  # the op sums in no less
        kernel: Tensor | tuple[Tensor, Tensor] = taps
        if gain != 1:
            kernel = taps * gain if taps.dim() == 2 else (taps * gain, taps)
        return ops.upfirdn2d(self.input, kernel, up, down, pad)
