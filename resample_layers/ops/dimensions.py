# SPDX-License-Identifier: BSD-3-Clause
"""The op on signals [N, C, L] and volumes [N, C, D, H, W]: views, and :func:`upfirdn2d` of them.

A signal is an image of one row, and its taps a kernel of one row. A separable filter of a volume
is one in its slices [H, W], which are images, and one across them, where each slice is a row
[H * W] of an image [D, H * W]. So gradients, compilers, transforms and kernels are upfirdn2d's.

``reshape`` splits a dimension again, not ``unflatten``: torch.onnx's tracer writes the sizes of the
latter into the model as numbers. Here it never copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .arguments import check_separable_call
from .native import is_channels_last
from .upfirdn2d import UPFIRDN2D


def upfirdn1d(
    input: Tensor,  # [N, C, L]
    taps: Tensor,  # [taps]
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,  # both sides, or (before, after)
) -> Tensor:
    """Upsample, pad, filter with FIR taps and downsample each channel of a batch of signals.

    :func:`upfirdn2d` along one axis, in one pass over memory::

        out[x] = sum_i taps[i] * u[x * down + (k - 1 - i) - pad_before]

    with ``u`` the input with ``up - 1`` zeros after each sample, and zeros outside.

    Args:
        input: signals, float16, bfloat16, float32 or float64, channels before or, as a transposed
            ``[N, L, C]``, after the samples in memory.
        taps: the filter, of any of the four dtypes; never rounded to the input's.
        up: zero-insertion factor.
        down: decimation factor.
        pad: zeros on both sides, or ``(before, after)``, counted in upsampled samples; negative
            values crop.

    Returns:
        The result, of the input's dtype, device and order in memory. Half types are summed in
        float32. Gradients of every order exist in ``input`` and in ``taps``.

    Shape:
        - input: ``[N, C, L]``; ``N`` and ``C`` may be 0
        - output: ``[N, C, (L * up + pad_before + pad_after - k) // down + 1]``

    Raises:
        TypeError: if input or taps is not a floating-point tensor, or a factor or pad is not made
            of ints.
        ValueError: if a rank, a length, a factor below 1, empty taps, their device or an output
            below one sample is at fault.

    Example:
        scipy's :func:`scipy.signal.upfirdn` has the pads ``(taps - 1, taps - up)``:

        >>> import torch
        >>> from resample_layers.ops import upfirdn1d
        >>> taps = torch.tensor([1.0, 2.0, 1.0])
        >>> upfirdn1d(torch.tensor([[[1.0, 2.0, 3.0]]]), taps, up=2, pad=(2, 1))
        tensor([[[1., 2., 3., 4., 5., 6., 3.]]])

    Source of the formula: the definition of ``upfirdn`` as in scipy.signal.
    """
    if has_torch_function((input, taps)):
        return handle_torch_function(  # type: ignore[no-any-return]
            upfirdn1d, (input, taps), input, taps, up=up, down=down, pad=pad
        )
    (taps,), (up_x,), (down_x,), pads = check_separable_call(1, input, taps, up, down, pad)
    rows, kernel = input.unsqueeze(2), taps.unsqueeze(0)  # [N, C, 1, L], [1, taps]
    out: Tensor = UPFIRDN2D(rows, kernel, None, (up_x, 1), (down_x, 1), (*pads, 0, 0), False)
    return out.squeeze(2)


def upfirdn3d(
    input: Tensor,  # [N, C, D, H, W]
    taps: Tensor | Sequence[Tensor],  # [taps] or ([kw], [kh], [kd])
    up: int | Sequence[int] = 1,  # (x, y, z)
    down: int | Sequence[int] = 1,  # (x, y, z)
    pad: int | Sequence[int] = 0,  # all sides, (before, after) or (x0, x1, y0, y1, z0, z1)
) -> Tensor:
    """Upsample, pad, filter with FIR taps and downsample each channel of a batch of volumes.

    :func:`upfirdn2d` on three axes, for separable kernels ``kernel[i, j, l] = taps_z[i] *
    taps_y[j] * taps_x[l]``, in two passes over memory, one in the slices ``[H, W]`` and one across
    them. The pass that leaves fewer samples to the other goes first.

    Args:
        input: volumes, float16, bfloat16, float32 or float64, contiguous or channels_last_3d.
        taps: ``[taps]`` for all axes, or ``(taps_x, taps_y, taps_z)``, of any of the four dtypes;
            never rounded to the input's.
        up: zero-insertion factor, an int or ``(x, y, z)``.
        down: decimation factor, an int or ``(x, y, z)``.
        pad: zeros on all sides, ``(before, after)`` for all axes, or
            ``(x0, x1, y0, y1, z0, z1)``, counted in upsampled samples; negative values crop.

    Returns:
        The result, of the input's dtype, device and memory format. Half types are summed in
        float32, and rounded after each of the two passes; for one rounding, pass
        ``input.float()``. Gradients of every order exist in ``input`` and in ``taps``.

    Shape:
        - input: ``[N, C, D, H, W]``; ``N`` and ``C`` may be 0
        - output: ``[N, C, out_d, out_h, out_w]`` with
          ``out_d = (D * up_z + pad_z0 + pad_z1 - kd) // down_z + 1``, the others likewise

    Raises:
        TypeError: if input or taps are not floating-point tensors, or a factor or pad is not made
            of ints.
        ValueError: if a rank, a length, a factor below 1, empty taps, their device or an output
            side below 1 is at fault; or the kernel is ``[kd, kh, kw]``, as one that is not
            separable would need kernels of its own.

    Example:
        >>> import torch
        >>> from resample_layers.ops import upfirdn3d
        >>> upfirdn3d(torch.ones(1, 1, 2, 2, 2), torch.ones(2), down=2).flatten()
        tensor([8.])

    Source of the formula: the definition of ``upfirdn`` as in scipy.signal, on three axes.
    """
    tensors = (input, *taps) if isinstance(taps, (tuple, list)) else (input, taps)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            upfirdn3d, tensors, input, taps, up=up, down=down, pad=pad
        )
    by_axis, ups, downs, pads = check_separable_call(3, input, taps, up, down, pad)
    (up_x, up_y, up_z), (down_x, down_y, down_z) = ups, downs
    # Not the public function: it refuses the slices of an empty volume, whose result has voxels
    in_slices = *by_axis[:2], (up_x, up_y), (down_x, down_y), pads[:4], False
    across = by_axis[2][:, None], None, (1, up_z), (1, down_z), (0, 0, *pads[4:]), False
    # The pass that leaves fewer samples goes first
    if up_x * up_y * down_z <= up_z * down_x * down_y:
        return _across_slices(_in_slices(input, *in_slices), *across)
    return _in_slices(_across_slices(input, *across), *in_slices)


def _in_slices(x: Tensor, *call: Any) -> Tensor:
    """The op on [H, W], in the order that ``x`` has in memory."""
    n, c, d = x.shape[:3]
    out: Tensor
    if is_channels_last(x):
        out = UPFIRDN2D(x.transpose(1, 2).flatten(0, 1), *call)
        return out.reshape(n, d, c, *out.shape[2:]).transpose(1, 2)
    out = UPFIRDN2D(x.flatten(1, 2), *call)
    return out.reshape(n, c, d, *out.shape[2:])


def _across_slices(x: Tensor, *call: Any) -> Tensor:
    """The op on [D, H * W]."""
    out: Tensor = UPFIRDN2D(x.flatten(3, 4), *call)
    return out.reshape(*out.shape[:3], *x.shape[3:])
