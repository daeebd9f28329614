# SPDX-License-Identifier: BSD-3-Clause
"""The public functions: what they compute, and which of four doors a call takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from . import native
from .arguments import check_call, check_epilogue, is_tracing
from .autograd import UpFirDn2d, UpFirDn2dBiasAct
from .registration import BIAS_ACT, OP, RAW, RAW_BIAS_ACT, output_size, raise_in_torchs_words


def upfirdn2d(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor | tuple[Tensor, Tensor],  # [kh, kw], [taps] or ([kw], [kh])
    up: int | Sequence[int] = 1,  # (x, y)
    down: int | Sequence[int] = 1,  # (x, y)
    pad: Sequence[int] = (0, 0),  # (before, after) or (x0, x1, y0, y1)
) -> Tensor:
    """Upsample, pad, filter with an FIR kernel and downsample each channel of a batch of images.

    A ``pad`` of two numbers is *(before, after)* for both axes, as in rosinality's and BasicSR's
    code; it is not *(x, y)* as in NVIDIA's.

    1. Insert ``up - 1`` zeros after each sample, the last one too.
    2. Pad with zeros, or crop where ``pad`` is negative. Pads count upsampled samples.
    3. Convolve with the kernel (a true convolution: the kernel is flipped), where it fits wholly.
    4. Keep every ``down``-th sample, starting with the first.

    In one formula, with ``u`` the zero-inserted input and zeros outside::

        out[y, x] = sum_ij kernel[i, j] * u[y * down_y + (kh - 1 - i) - pad_y0,
                                            x * down_x + (kw - 1 - j) - pad_x0]

    Args:
        input: images, float16, bfloat16, float32 or float64, of any memory format.
        kernel: a 2-D kernel ``[kh, kw]``; or ``[taps]`` for the separable kernel
            ``outer(taps, taps)``; or a pair ``(taps_x, taps_y)`` for ``outer(taps_y, taps_x)``.
            Declaring a kernel separable makes it cheaper; it is never detected. Any of the four
            dtypes; it is never rounded to the input's.
        up: zero-insertion factor, an int or ``(x, y)``.
        down: decimation factor, an int or ``(x, y)``.
        pad: ``(before, after)`` for both axes, or ``(x0, x1, y0, y1)``.

    Returns:
        The result, of the input's dtype, device and memory format. Half types are summed in
        float32. Gradients of every order exist in ``input`` and in ``kernel``.

    Shape:
        - input: ``[N, C, H, W]``; ``N`` and ``C`` may be 0
        - output: ``[N, C, out_h, out_w]`` with
          ``out_h = (H * up_y + pad_y0 + pad_y1 - kh) // down_y + 1``, ``out_w`` likewise

    Raises:
        TypeError: if input or kernel is not a floating-point tensor, or a factor or pad is not
            made of ints.
        ValueError: if a rank, a length, a factor below 1, an empty kernel, the kernel's device or
            an output side below 1 is at fault.

    Example:
        scipy's 1-D :func:`scipy.signal.upfirdn` is the row below with pads ``(taps - 1,
        taps - up)``:

        >>> import torch
        >>> from resample_layers.ops import upfirdn2d
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> taps_x, taps_y = torch.tensor([1.0, 2.0, 1.0]), torch.ones(1)
        >>> upfirdn2d(x, (taps_x, taps_y), up=(2, 1), pad=(2, 1, 0, 0))
        tensor([[[[1., 2., 3., 4., 5., 6., 3.]]]])

    Source of the formula: the definition of ``upfirdn`` (upsample, FIR filter, downsample) as in
    scipy.signal, on two axes; sizes and transposes are derived in
    :mod:`resample_layers.geometry`.
    """
    tensors = (input, *kernel) if isinstance(kernel, tuple) else (input, kernel)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            upfirdn2d, tensors, input, kernel, up=up, down=down, pad=pad
        )
    taps, taps_y, up, down, pad = check_call(input, kernel, up, down, pad)

    # Doors 1 and 2
    compiling = torch.compiler.is_compiling()
    if _wants_native(compiling):
        return native.resample(input, taps, taps_y, up, down, pad)

    # Door 3: compilers see one opaque operator, for all sizes
    if compiling:
        out: Tensor = OP(input, taps, taps_y, up, down, pad, False)
        return out

    # Door 4: eager
    try:
        if torch.is_grad_enabled() and (
            input.requires_grad
            or taps.requires_grad
            or (taps_y is not None and taps_y.requires_grad)
        ):
            out = UpFirDn2d.apply(input, taps, up, down, pad, taps_y)
            return out
        out = RAW(input, taps, taps_y, up, down, pad, False)
        return out
    except RuntimeError as error:
        raise_in_torchs_words(error, input, output_size(input, taps, taps_y, up, down, pad))


def upfirdn2d_bias_act(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor | tuple[Tensor, Tensor],  # [kh, kw], [taps] or ([kw], [kh])
    bias: Tensor | None = None,  # [C]
    noise: Tensor | None = None,  # [N or 1, 1, out_h, out_w]
    noise_strength: Tensor | None = None,  # one element
    up: int | Sequence[int] = 1,  # (x, y)
    down: int | Sequence[int] = 1,  # (x, y)
    pad: Sequence[int] = (0, 0),  # (before, after) or (x0, x1, y0, y1)
    negative_slope: float = 0.2,
    gain: float = math.sqrt(2.0),
    clamp: float | None = None,
) -> Tensor:
    """:func:`upfirdn2d`, then noise, bias, leaky ReLU, gain and clamp in the same pass.

    What follows every upsampling convolution of StyleGAN2's generator. With ``s`` the result of
    ``upfirdn2d(input, kernel, up, down, pad)``, not yet rounded to the input's dtype::

        out = clamp(gain * leaky_relu(s + noise_strength * noise + bias, negative_slope))

    Args:
        input, kernel, up, down, pad: as for :func:`upfirdn2d`.
        bias: one number per channel, or None.
        noise: one image for all channels, of one sample for all or one for each; or None.
        noise_strength: a tensor of one element that scales the noise; None: 1.
        negative_slope: slope of the leaky ReLU for negative values, >= 0; 1 is linear.
        gain: factor after the activation, > 0. The default of sqrt(2) restores the second moment
            that the activation takes away.
        clamp: largest magnitude of the result, > 0; None: none.

    Returns:
        The result, of the input's dtype, device and memory format. Gradients of every order exist
        in all six tensors; where the result was clamped they are zero. The backward pass reads the
        result, so it must not be written to before.

    Shape:
        - input: ``[N, C, H, W]``; bias: ``[C]``; noise: ``[N or 1, 1, out_h, out_w]``
        - output: ``[N, C, out_h, out_w]``, as for :func:`upfirdn2d`

    Raises:
        TypeError, ValueError: as for :func:`upfirdn2d`, and if bias, noise or noise_strength is of
            another kind, shape or device, noise_strength comes without noise, or a constant is out
            of its range.

    Example:
        >>> import torch
        >>> from resample_layers.ops import upfirdn2d_bias_act
        >>> x = torch.tensor([[[[1.0, -3.0]]]])
        >>> upfirdn2d_bias_act(x, torch.ones(1), torch.ones(1), negative_slope=0.5, gain=2.0)
        tensor([[[[ 4., -2.]]]])

    Source of the formula: Karras et al., StyleGAN2, 2020.
    """
    operands = [t for t in (bias, noise, noise_strength) if t is not None]
    tensors = (input, *(kernel if isinstance(kernel, tuple) else (kernel,)), *operands)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            upfirdn2d_bias_act,
            tensors,
            input,
            kernel,
            bias=bias,
            noise=noise,
            noise_strength=noise_strength,
            up=up,
            down=down,
            pad=pad,
            negative_slope=negative_slope,
            gain=gain,
            clamp=clamp,
        )
    taps, taps_y, up, down, pad = check_call(input, kernel, up, down, pad)
    size = output_size(input, taps, taps_y, up, down, pad)
    slope, gain, clamp = check_epilogue(
        input, size, bias, noise, noise_strength, negative_slope, gain, clamp
    )
    call = (input, taps, taps_y, bias, noise, noise_strength, up, down, pad, slope, gain, clamp)
    compiling = torch.compiler.is_compiling()
    if _wants_native(compiling):
        return native.resample_bias_act(*call)
    if compiling:
        out: Tensor = BIAS_ACT(*call)
        return out
    try:
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call[:6]):
            out = UpFirDn2dBiasAct.apply(*call)
        else:
            out = RAW_BIAS_ACT(*call)
        return out
    except RuntimeError as error:
        raise_in_torchs_words(error, input, size)


def _wants_native(compiling: bool) -> bool:
    """Doors 1 and 2.

    1. Exporters that want standard operators (ONNX's trace or compile).
    2. Forward mode and torch.func, whose tangents torch.library would drop silently; before door
       3, since it holds under compile too.
    """
    return (
        is_tracing()
        or native.is_differentiated_elsewhere()
        or (compiling and torch.onnx.is_in_onnx_export())
    )
