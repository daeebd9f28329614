# SPDX-License-Identifier: BSD-3-Clause
"""Bias, leaky ReLU and gain in plain torch, and the module of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..values import as_count, check_bool, check_finite, to_float
from .arguments import check_input, check_operand
from .modes import is_tracing


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
        input: activations ``[N, C, ...]``, float16, bfloat16, float32 or float64.
        bias: ``[C]``, rounded to the input's dtype; None for no bias.
        negative_slope: slope for negative values.
        scale: gain after the activation.

    Shape:
        - output: as input, of the input's dtype

    Raises:
        TypeError: if ``input`` or ``bias`` is no tensor of these dtypes.
        ValueError: if ``bias`` is not ``[C]``, or is on another device.

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
    check_input(input, 0)
    check_operand("bias", bias, input)
    if bias is not None:
        if bias.dim() != 1 or input.dim() < 2 or _lengths_differ(bias, input):
            raise ValueError(
                f"bias must be [C] with the C of input [N, C, ...], got bias of shape "
                f"{tuple(bias.shape)} and input of shape {tuple(input.shape)}"
            )
        input = input + bias.to(input.dtype).reshape(1, -1, *(1,) * (input.dim() - 2))
    check_finite("negative_slope", negative_slope)
    check_finite("scale", scale)
    return F.leaky_relu(input, to_float(negative_slope)) * to_float(scale)


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
        channel = as_count("channel", channel, 0)
        check_bool("bias", bias)
        check_finite("negative_slope", negative_slope)
        check_finite("scale", scale)
        self.bias = nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...

    def extra_repr(self) -> str:
        channel = None if self.bias is None else self.bias.shape[0]
        return f"channel={channel}, negative_slope={self.negative_slope}, scale={self.scale:.4g}"
