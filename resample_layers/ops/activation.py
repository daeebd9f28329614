# SPDX-License-Identifier: BSD-3-Clause
"""Scale, noise, bias, leaky ReLU, gain and clamp, which follow convolutions of StyleGAN2, as an op.

The formula and its gradient stand in epilogue.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .. import geometry
from . import native
from .activation_grad import NO_TAPS, first_order
from .arguments import check_call, check_epilogue, check_input
from .epilogue import Epilogue, Operands, activation_grad, operand_grads
from .modes import is_differentiated_elsewhere, is_tracing
from .op import Grads, Op
from .upfirdn2d import (
    KERNEL_GRAD,
    UPFIRDN2D,
    Pads,
    Pair,
    check_one_device,
    empty_output,
    keep_taps,
    split_kernel_grad,
)


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
    scale: Tensor | None = None,  # [N, C]
) -> Tensor:
    """:func:`upfirdn2d`, then scale, noise, bias, leaky ReLU, gain and clamp in the same pass.

    What follows every upsampling convolution of StyleGAN2's generator. With ``s`` the result of
    ``upfirdn2d(input, kernel, up, down, pad)``, not yet rounded to the input's dtype::

        z   = scale * s + noise_strength * noise + bias
        out = clamp(gain * leaky_relu(z, negative_slope))

    Args:
        input, kernel, up, down, pad: as for :func:`upfirdn2d`.
        bias: one number per channel, or None.
        noise: one image for all channels, of one sample for all or one for each; or None.
        noise_strength: a tensor of one element that scales the noise; None: 1.
        negative_slope: slope of the leaky ReLU for negative values, >= 0; 1 is linear.
        gain: factor after the activation, > 0. The default of sqrt(2) restores the second moment
            that the activation takes away.
        clamp: largest magnitude of the result, > 0; None: none. It is rounded to the accumulate
            dtype, and is at most the largest finite number there.
        scale: one factor for each sample and channel, such as the demodulation of StyleGAN2; None:
            1. It is not rounded to the dtype of the input.

    Returns:
        The result, of the input's dtype, device and memory format. Gradients of every order exist
        in all seven tensors; where the result was clamped they are zero. The backward pass reads
        the result, so it must not be written to before. It reads the input, too, where the gradient
        of a kernel or of scale is asked for.

    Shape:
        - input: ``[N, C, H, W]``; bias: ``[C]``; noise: ``[N or 1, 1, out_h, out_w]``;
          scale: ``[N, C]``
        - output: ``[N, C, out_h, out_w]``, as for :func:`upfirdn2d`

    Raises:
        TypeError, ValueError: as for :func:`upfirdn2d`, and if bias, noise, noise_strength or scale
            is of another kind, shape or device, noise_strength comes without noise, or a constant
            is out of its range.

    Example:
        >>> import torch
        >>> from resample_layers.ops import upfirdn2d_bias_act
        >>> x = torch.tensor([[[[1.0, -3.0]]]])
        >>> upfirdn2d_bias_act(x, torch.ones(1), torch.ones(1), negative_slope=0.5, gain=2.0)
        tensor([[[[ 4., -2.]]]])

    Source of the formula: Karras et al., StyleGAN2, 2020.
    """
    operands = [t for t in (bias, noise, noise_strength, scale) if t is not None]
    tensors = (input, *(kernel if isinstance(kernel, (tuple, list)) else (kernel,)), *operands)
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
            scale=scale,
        )
    taps, taps_y, up, down, pad = check_call(input, kernel, up, down, pad)
    size = geometry.output_sizes(input.shape[2:], up, down, pad, native.kernel_size(taps, taps_y))
    constants = check_epilogue(
        input, size, bias, noise, noise_strength, scale, negative_slope, gain, clamp
    )
    return UPFIRDN2D_BIAS_ACT(  # type: ignore[no-any-return]
        input, taps, taps_y, bias, noise, noise_strength, scale, up, down, pad, *constants
    )


def bias_act(
    input: Tensor,  # [N, C, H, W]
    bias: Tensor | None = None,  # [C]
    noise: Tensor | None = None,  # [N or 1, 1, H, W]
    noise_strength: Tensor | None = None,  # one element
    negative_slope: float = 0.2,
    gain: float = math.sqrt(2.0),
    clamp: float | None = None,
    scale: Tensor | None = None,  # [N, C]
) -> Tensor:
    """``clamp(gain * leaky_relu(scale * input + noise_strength * noise + bias, negative_slope))``.

    :func:`upfirdn2d_bias_act` with a filter of the one tap 1: one pass over memory, which pays for
    large tensors. The result is what the backward pass needs, so it must not be written to before.

    Args:
        input: activations, float16, bfloat16, float32 or float64.
        bias, noise, noise_strength, negative_slope, gain, clamp, scale: as for
            :func:`upfirdn2d_bias_act`.

    Shape:
        - input, output: ``[N, C, H, W]``, each of which may be 0

    Raises:
        TypeError, ValueError: as :func:`upfirdn2d_bias_act`.

    Example:
        >>> import torch
        >>> bias_act(torch.tensor([[[[1.0, -3.0]]]]), torch.ones(1), negative_slope=0.5, gain=2.0)
        tensor([[[[ 4., -2.]]]])

    Source of the formula: Karras et al., StyleGAN2, 2020.
    """
    tensors = [t for t in (input, bias, noise, noise_strength, scale) if t is not None]
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            bias_act,
            tensors,
            input,
            bias,
            noise,
            noise_strength,
            negative_slope,
            gain,
            clamp,
            scale,
        )
    check_input(input)
    if (
        torch.compiler.is_compiling()  # compilers fuse the formula with what is around it
        or is_tracing()
        or is_differentiated_elsewhere()
        or input.numel() == 0  # the op refuses an output without rows or columns
    ):
        size = (input.shape[2], input.shape[3])
        constants = check_epilogue(
            input, size, bias, noise, noise_strength, scale, negative_slope, gain, clamp
        )
        epilogue = Epilogue(bias, noise, noise_strength, scale, *constants)
        return epilogue.apply(input.to(native.accumulate_dtype(input))).to(input.dtype)
    return upfirdn2d_bias_act(
        input,
        input.new_ones(1, dtype=native.accumulate_dtype(input)),
        bias,
        noise,
        noise_strength,
        negative_slope=negative_slope,
        gain=gain,
        clamp=clamp,
        scale=scale,
    )


# The op


def _empty_output(
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    bias: Tensor | None,
    noise: Tensor | None,
    noise_strength: Tensor | None,
    scale: Tensor | None,
    up: Pair,
    down: Pair,
    pad: Pads,
    *constants: Any,
) -> Tensor:
    check_one_device(input, bias, noise, noise_strength, scale)
    return empty_output(input, kernel, taps_y, up, down, pad)


def _setup(
    needs: Sequence[bool], inputs: tuple[Any, ...], output: Tensor
) -> tuple[tuple[Tensor | None, ...], Any]:
    input, kernel, taps_y, bias, noise, strength, scale, up, down, pad, *constants = inputs
    needs_scaled = needs[0] or needs[1] or needs[2]
    operands = Operands.of((bias, noise, strength, scale), needs[3:7], needs_scaled)
    kinds, *values = operands
    saved = (
        input if needs[1] or needs[2] or needs[6] else None,
        *keep_taps(kernel, taps_y),
        output,
        *values,
    )
    call = up, down, pad, input.shape
    return saved, (call, constants, kinds)


def _backward(needs: Sequence[bool], saved: Sequence[Any], constants: Any, grad: Tensor) -> Grads:
    """The activation's gradient, found from the output, and then that of the op."""
    input, kernel, taps_y, output, *values = saved
    call, (slope, gain, clamp), kinds = constants
    up, down, pad, in_shape = call
    operands = Operands(kinds, *values)
    scale = operands.scale
    # Whether the gradient of z comes with tap and scale, as that of the input
    alone = not (needs[1] or needs[2]) and _is_one_tap(grad, kernel, taps_y, call)
    taps = (kernel, taps_y) if alone else NO_TAPS
    scaled = None
    if needs[6]:
        scaled = input if alone else _scaled(input, kernel, taps_y, up, down, pad)
    if torch.is_grad_enabled():  # a graph of the gradient is asked for
        z_grad = (
            grad if scaled is None else grad.to(scaled.dtype)
        )  # of the dtype of the products with it
        z_grad = activation_grad(z_grad, output.detach(), slope, clamp)
        grads = operand_grads(z_grad, scaled, taps, gain, operands, needs[3:7])
        grad = z_grad.to(grad.dtype)
    else:
        grad, grads = first_order(
            grad, output, scaled, taps, operands, needs[3:7], slope, gain, clamp
        )
        if alone:
            return (grad if needs[0] else None), None, None, *grads
    grad_input, grad_kernel, grad_taps_y = None, None, None
    size = native.kernel_size(kernel, taps_y)
    if needs[1] or needs[2]:
        weights = grad
        if scale is not None:  # in the accumulate dtype: 16 bits might not hold the products
            wide = native.accumulate_dtype(grad)
            input, weights = input.to(wide), grad.to(wide) * scale.to(wide)[:, :, None, None]
        w = KERNEL_GRAD(input, weights, up, down, pad, size[::-1]) * gain
        grad_kernel, grad_taps_y = split_kernel_grad(w, kernel, taps_y)
    if needs[0]:
        # The gain goes to the taps, which are few; they stay as precise as the sums over them
        g_pad = geometry.adjoint_pads(in_shape[2:], grad.shape[2:], up, down, pad, size)
        kernel = kernel.to(native.accumulate_dtype(grad, kernel)) * gain
        if scale is None:
            grad_input = UPFIRDN2D(grad, kernel, taps_y, down, up, g_pad, True)
        else:  # The scale multiplies the sums before they are rounded, as in the op itself
            kernel = kernel.flip(tuple(range(kernel.dim())))
            taps_y = None if taps_y is None else taps_y.flip(0)
            operands_of_adjoint = None, None, None, scale
            grad_input = UPFIRDN2D_BIAS_ACT(
                grad, kernel, taps_y, *operands_of_adjoint, down, up, g_pad, 1.0, 1.0, None
            )
    return grad_input, grad_kernel, grad_taps_y, *grads


def _scaled(
    input: Tensor, kernel: Tensor, taps_y: Tensor | None, up: Pair, down: Pair, pad: Pads
) -> Tensor:
    """What the op scales, computed anew.

    Float16 lacks the range for it, so that it is of float32 there. Of other inputs it is rounded to
    their dtype: in bfloat16 this moves each product with the gradient by at most 2^-9 of it, as
    much as the rounding of the gradient itself.
    """
    input = input.to(native.WIDE.get(input.dtype, input.dtype))
    scaled: Tensor = UPFIRDN2D(input, kernel, taps_y, up, down, pad, False)
    return scaled


def _is_one_tap(
    grad: Tensor, kernel: Tensor, taps_y: Tensor | None, call: tuple[Pair, Pair, Pads, Any]
) -> bool:
    """Whether the op only multiplies its input with a tap, of the dtype that the sums are in."""
    up, down, pad, _ = call
    return (
        native.kernel_size(kernel, taps_y) == (1, 1)
        and all(one == 1 for one in (*up, *down))
        and all(none == 0 for none in pad)
        and native.accumulate_dtype(grad, kernel) == native.accumulate_dtype(grad)
        and (
            taps_y is None or native.accumulate_dtype(taps_y, grad) == native.accumulate_dtype(grad)
        )
    )


UPFIRDN2D_BIAS_ACT = Op(
    "upfirdn2d_bias_act",
    "(Tensor input, Tensor kernel, Tensor? taps_y, Tensor? bias, Tensor? noise, "
    "Tensor? noise_strength, Tensor? scale, int[2] up, int[2] down, SymInt[4] pad, "
    "float negative_slope, float gain, float? clamp) -> Tensor",
    native.resample_bias_act,
    _empty_output,
    _setup,
    _backward,
)
