# SPDX-License-Identifier: BSD-3-Clause
"""Noise, bias, leaky ReLU and gain: what follows every convolution of StyleGAN2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from .arguments import check_epilogue, check_input, is_tracing
from .epilogue import Epilogue
from .native import accumulate_dtype, is_differentiated_elsewhere
from .upfirdn2d import upfirdn2d_bias_act


def bias_act(
    input: Tensor,  # [N, C, H, W]
    bias: Tensor | None = None,  # [C]
    noise: Tensor | None = None,  # [N or 1, 1, H, W]
    noise_strength: Tensor | None = None,  # one element
    negative_slope: float = 0.2,
    gain: float = math.sqrt(2.0),
    clamp: float | None = None,
) -> Tensor:
    """``clamp(gain * leaky_relu(input + noise_strength * noise + bias, negative_slope))``.

    :func:`upfirdn2d_bias_act` with a filter of the one tap 1: one pass over memory, which pays for
    large tensors. The result is what the backward pass needs, so it must not be written to before.

    Args:
        input: activations, float16, bfloat16, float32 or float64.
        bias, noise, noise_strength, negative_slope, gain, clamp: as for
            :func:`upfirdn2d_bias_act`.

    Shape:
        - input, output: ``[N, C, H, W]``

    Raises:
        TypeError, ValueError: as :func:`upfirdn2d_bias_act`.

    Example:
        >>> import torch
        >>> bias_act(torch.tensor([[[[1.0, -3.0]]]]), torch.ones(1), negative_slope=0.5, gain=2.0)
        tensor([[[[ 4., -2.]]]])

    Source of the formula: Karras et al., StyleGAN2, 2020.
    """
    tensors = [t for t in (input, bias, noise, noise_strength) if t is not None]
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            bias_act, tensors, input, bias, noise, noise_strength, negative_slope, gain, clamp
        )
    check_input(input)
    if torch.compiler.is_compiling() or is_tracing() or is_differentiated_elsewhere():
        # Compilers fuse the formula with what is around it
        size = (input.shape[2], input.shape[3])
        constants = check_epilogue(
            input, size, bias, noise, noise_strength, negative_slope, gain, clamp
        )
        epilogue = Epilogue(bias, noise, noise_strength, *constants)
        return epilogue.apply(input.to(accumulate_dtype(input))).to(input.dtype)
    return upfirdn2d_bias_act(
        input,
        input.new_ones(1, dtype=accumulate_dtype(input)),
        bias,
        noise,
        noise_strength,
        negative_slope=negative_slope,
        gain=gain,
        clamp=clamp,
    )


def fused_leaky_relu(
    input: Tensor,  # [N, C, ...]
    bias: Tensor | None = None,  # [C]
    negative_slope: float = 0.2,
    scale: float = math.sqrt(2.0),
) -> Tensor:
    """``scale * leaky_relu(input + bias)``, the bias along dimension 1, in plain torch.

    The default ``scale`` of sqrt(2) restores the second moment that the activation takes away
    from a centred normal input (exactly for slope 0, nearly for 0.2).

    Args:
        input: activations ``[N, C, ...]``.
        bias: ``[C]``, promoted to the input's dtype; None for no bias.
        negative_slope: slope for negative values.
        scale: gain after the activation.

    Shape:
        - output: as input, of the input's dtype

    Raises:
        TypeError: if ``input`` is not a floating-point tensor, or ``bias`` no tensor.
        ValueError: if ``bias`` is not ``[C]``, or on another device.

    Example:
        >>> import torch
        >>> fused_leaky_relu(torch.tensor([[1.0, -1.0]]), torch.zeros(2), 0.5, 2.0)
        tensor([[ 2., -1.]])

    Source of the formula: Karras et al., Analyzing and Improving the Image Quality of StyleGAN,
    2020, with the gain of He et al., 2015.
    """
    tensors = (input,) if bias is None else (input, bias)
    if has_torch_function(tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            fused_leaky_relu, tensors, input, bias, negative_slope, scale
        )
    if not isinstance(input, Tensor) or not input.is_floating_point():
        kind = input.dtype if isinstance(input, Tensor) else type(input).__name__
        raise TypeError(f"input must be a floating-point tensor [N, C, ...], got {kind}")
    if bias is not None:
        if not isinstance(bias, Tensor):
            raise TypeError(f"bias must be a tensor [C] or None, got {type(bias).__name__}")
        if bias.device != input.device:
            raise ValueError(
                f"bias must be on the device of input, got bias on {bias.device} and input on "
                f"{input.device}"
            )
        if bias.dim() != 1 or input.dim() < 2 or _lengths_differ(bias, input):
            raise ValueError(
                f"bias must be [C] with the C of input [N, C, ...], got bias of shape "
                f"{tuple(bias.shape)} and input of shape {tuple(input.shape)}"
            )
        input = input + bias.to(input.dtype).reshape(1, -1, *(1,) * (input.dim() - 2))
    return F.leaky_relu(input, negative_slope) * scale


def _lengths_differ(bias: Tensor, input: Tensor) -> bool:
    """Whether C is not the same; traced sizes are tensors, and comparing them would fix them."""
    return not is_tracing() and bias.shape[0] != input.shape[1]


class FusedLeakyReLU(nn.Module):
    """:func:`fused_leaky_relu` with a learned bias that starts at zero.

    Shape:
        - input, output: ``[N, channel, ...]``
    """

    def __init__(
        self,
        channel: int,
        bias: bool = True,
        negative_slope: float = 0.2,
        scale: float = math.sqrt(2.0),
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)

    def extra_repr(self) -> str:
        channel = None if self.bias is None else self.bias.shape[0]
        return f"channel={channel}, negative_slope={self.negative_slope}, scale={self.scale:.4g}"
