# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA's convolution with resampling: torch's convolution and our op."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .. import geometry
from ..ops.arguments import Pads
from ..ops.modes import is_autocast, is_tracing
from .arguments import (
    as_flag,
    as_paddings,
    as_rate,
    check_device,
    check_filter,
    check_images,
    tap_counts,
)
from .resampling import Call, Padding


def conv2d_resample(
    x: Tensor,  # [N, C_in, H, W]
    w: Tensor,  # [C_out, C_in / groups, kh, kw]
    f: Tensor | None = None,  # [fh, fw] or [taps]
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,  # [x, y] or [x0, x1, y0, y1], on the upsampled grid
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample with ``f``, convolve with ``w``, downsample with ``f``; pad once, at the start.

    1. Where ``up > 1``: insert zeros and filter with ``f`` times ``up ** 2``.
    2. Convolve with ``w``: a correlation, as torch's, if ``flip_weight`` is True.
    3. Where ``down > 1``: filter with ``f`` and keep every ``down``-th sample.

    The pads of :func:`upsample2d` and :func:`downsample2d` are on top of ``padding``.

    Shape:
        - output: ``[N, C_out, (H * up) // down, (W * up) // down]`` for odd weights and
          ``padding = (k - 1) / 2``

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> import torch
        >>> x, w, f = torch.ones(1, 3, 4, 5), torch.ones(6, 3, 3, 3), torch.ones(4, 4) / 16
        >>> conv2d_resample(x, w, f, up=2, padding=1).shape
        torch.Size([1, 6, 8, 10])
    """
    check_images("x", x)
    check_images("w", w, "[C_out, C_in / groups, kh, kw]")
    up, down, groups = as_rate("up", up), as_rate("down", down), as_rate("groups", groups)
    flip_weight, flip_filter = (
        as_flag("flip_weight", flip_weight),
        as_flag("flip_filter", flip_filter),
    )
    if f is not None:
        check_filter("f", f)
    if w.dtype != x.dtype and not is_autocast(x.device):
        raise TypeError(f"w must be of the dtype of x, {x.dtype}, got {w.dtype}")
    # Traced sizes are tensors: comparing them would fix them
    if not is_tracing() and (w.shape[0] % groups or x.shape[1] != w.shape[1] * groups):
        raise ValueError(
            "w must be [C_out, C_in / groups, kh, kw] with C_out a multiple of groups and the C_in "
            f"of x, got w of shape {tuple(w.shape)}, x of shape {tuple(x.shape)}, groups={groups}"
        )
    check_device(("x", "w"), x, w)
    fw, fh = (1, 1) if f is None else tap_counts(f)
    kw, kh = tap_counts(w)
    x0, x1, y0, y1 = given = as_paddings(padding)
    for rate, own in ((up, geometry.upsample_pad), (down, geometry.downsample_pad)):
        if rate > 1:
            (dx0, dx1), (dy0, dy1) = own(fw, rate), own(fh, rate)
            x0, x1, y0, y1 = x0 + dx0, x1 + dx1, y0 + dy0, y1 + dy1
    out_h = geometry.output_size(x.shape[2], up, 1, y0, y1, fh if up > 1 else 1) - (kh - 1)
    out_w = geometry.output_size(x.shape[3], up, 1, x0, x1, fw if up > 1 else 1) - (kw - 1)
    if down > 1:
        out_h = geometry.output_size(out_h, 1, down, 0, 0, fh)
        out_w = geometry.output_size(out_w, 1, down, 0, 0, fw)
    if not is_tracing() and (out_h < 1 or out_w < 1):
        raise ValueError(
            f"output must be at least 1x1 (height x width), got {out_h}x{out_w} from x "
            f"{x.shape[2]}x{x.shape[3]}, w {kh}x{kw}, f {fh}x{fw}, up={up}, down={down}, "
            f"padding={given}"
        )

    if up == 1:
        w = w if flip_weight else w.flip(2, 3)
        if down == 1:
            if x0 == x1 >= 0 and y0 == y1 >= 0:
                return F.conv2d(x, w, padding=(y0, x0), groups=groups)
            x = _resample(x, None, 1, 1, (x0, x1, y0, y1), False, 1.0)  # crops deeper than F.pad
            return F.conv2d(x, w, groups=groups)
        # The strides of filter and convolution commute; one tap convolves what is left
        before, after = (down, 1) if kh == kw == 1 else (1, down)
        x = _resample(x, f, 1, before, (x0, x1, y0, y1), flip_filter, 1.0)
        return F.conv2d(x, w, stride=after, groups=groups)

    gain = float(up**2)
    if kh == kw == down == 1:  # one tap convolves before there is more to convolve
        x = F.conv2d(x, w, groups=groups)
        return _resample(x, f, up, 1, (x0, x1, y0, y1), flip_filter, gain)
    # Zero insertion and convolution in one, by a transposed convolution: it is a true convolution,
    # pads by k - 1 on both sides, and leaves out the up - 1 zeros that follow the last sample
    x = F.conv_transpose2d(x, _transposed(w, groups, flip_weight), stride=up, groups=groups)
    pads = (x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up))
    x = _resample(x, f, 1, 1, pads, flip_filter, gain)
    return x if down == 1 else _resample(x, f, 1, down, (0, 0, 0, 0), flip_filter, 1.0)


def _transposed(w: Tensor, groups: int, flip: bool) -> Tensor:
    """[C_out, C_in / groups, kh, kw] -> [C_in, C_out / groups, kh, kw]; flipped to correlate."""
    c_out, kh, kw = w.shape[0], w.shape[2], w.shape[3]
    w = w.reshape(groups, c_out // groups, -1, kh, kw).transpose(1, 2)
    w = w.reshape(-1, c_out // groups, kh, kw)
    return w.flip(2, 3) if flip else w


def _resample(
    x: Tensor, f: Tensor | None, up: int, down: int, pads: Pads, flip: bool, gain: float
) -> Tensor:
    return Call(("x", "f"), x, f, pads, flip, gain).plain(up, down)
