# SPDX-License-Identifier: BSD-3-Clause
"""rosinality's ``op`` package, and the layers of its ``model.py``.

A ``pad`` of two is *(before, after)* for both axes; of four, (x0, x1, y0, y1). A ``kernel`` may be
separable, as ``[taps]`` or a pair of such; the original refuses these. The layers keep
``kernel`` in their ``state_dict``, the gain ``factor ** 2`` included, so checkpoints load strictly
both ways.

Two of its copies have more, which is served here too. GPEN passes a ``device``: it is accepted and
chooses nothing, since tensors know where they are. LIA has a bias of shape ``[1, C, 1, 1]``, in its
checkpoints too: these load strictly, and are saved again with ``[C]``.

What the original gets wrong without a word, and what happens here instead:

- It pads a kernel that is not square by its height on both axes. Here the layers refuse it.
- Taps that sum to zero become inf or nan. Here they are an error.
- ``FusedLeakyReLU(channel, 0.1)`` sets ``bias``, while in older copies it sets the slope. Here it
  is an error.
- On a CPU, ``fused_leaky_relu`` takes 0.2 for every ``negative_slope``. Here it takes the one that
  is given.
- On CUDA, the kernel gets no gradient, and third derivatives are wrong. Here they are right, on
  every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import geometry, ops
from ..ops import upfirdn2d_native
from ..ops.arguments import as_pads
from ..ops.modes import is_tracing
from . import activation, arguments, conv2d_gradfix

__all__ = [
    "Blur",
    "Downsample",
    "FusedLeakyReLU",
    "Upsample",
    "conv2d_gradfix",
    "fused_leaky_relu",
    "make_kernel",
    "upfirdn2d",
    "upfirdn2d_native",
]

Device = torch.device | str | None


def upfirdn2d(
    input: Tensor,  # [N, C, H, W]
    kernel: Tensor | tuple[Tensor, Tensor],  # [kh, kw]; our [taps] or ([kw], [kh]) too
    up: int | Sequence[int] = 1,  # (x, y)
    down: int | Sequence[int] = 1,  # (x, y)
    pad: Sequence[int] = (0, 0),  # (before, after) or (x0, x1, y0, y1)
    device: Device = None,
) -> Tensor:
    """:func:`resample_layers.ops.upfirdn2d`, which has this convention.

    Raises:
        TypeError, ValueError: as our op; ValueError also if ``device`` is no device's name.
    """
    arguments.as_device(device)
    up, down, pad = (arguments.as_list(value) for value in (up, down, pad))
    return ops.upfirdn2d(input, kernel, up, down, pad)


def fused_leaky_relu(
    input: Tensor,  # [N, C, ...]
    bias: Tensor | None = None,  # [C] or [1, C, 1, 1]
    negative_slope: float = 0.2,
    scale: float = math.sqrt(2.0),
    device: Device = None,
) -> Tensor:
    """``scale * leaky_relu(input + bias)``: :func:`resample_layers.ops.fused_leaky_relu`.

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """
    arguments.as_device(device)
    return activation.fused_leaky_relu(input, _as_vector(bias), negative_slope, scale)


class FusedLeakyReLU(activation.FusedLeakyReLU):
    """:func:`fused_leaky_relu` with a learned bias ``[channel]``.

    Shape:
        - input, output: ``[N, channel, ...]``

    Raises:
        TypeError: if an argument is of another kind, ``bias`` a number: older copies of the code
            take the slope in its place.
        ValueError: if a number is out of its range, or ``device`` is no device's name.
    """

    def __init__(
        self,
        channel: int,
        bias: bool = True,
        negative_slope: float = 0.2,
        scale: float = math.sqrt(2.0),
        device: Device = None,
    ) -> None:
        arguments.as_device(device)
        super().__init__(channel, bias, negative_slope, scale)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if prefix + "bias" in state_dict:  # of a copy of the user's
            state_dict[prefix + "bias"] = _as_vector(state_dict[prefix + "bias"])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _as_vector(bias: Any) -> Any:
    """``[1, C, 1, 1]`` as ``[C]``; anything else stays."""
    if not isinstance(bias, Tensor) or bias.dim() != 4 or bias.layout != torch.strided:
        return bias
    # Traced sizes are tensors: comparing them would fix them
    is_vector = is_tracing() or bias.shape == (1, bias.shape[1], 1, 1)
    return bias.reshape(-1) if is_vector else bias


def make_kernel(k: Any) -> Tensor:
    """Make the float32 kernel of some taps: ``outer(k, k)`` if 1-D, and divided by its sum.

    Raises:
        TypeError, ValueError: as :func:`resample_layers.make_resample_kernel`.

    Example:
        >>> make_kernel([1, 3, 3, 1])[0] * 64
        tensor([1., 3., 3., 1.])
    """
    return arguments.make_kernel("k", k)


class Upsample(nn.Module):
    """``[H, W] -> [H * factor, W * factor]``; the kernel holds the gain ``factor ** 2``.

    Shape:
        - input: ``[N, C, H, W]``; output: ``[N, C, H * factor, W * factor]``

    Raises:
        TypeError, ValueError: if an argument is at fault, or the kernel is not square.
    """

    kernel: Tensor

    def __init__(self, kernel: Any, factor: int = 2) -> None:
        super().__init__()
        self.factor = arguments.as_rate("factor", factor)
        taps = arguments.make_square_kernel("kernel", kernel)
        self.register_buffer("kernel", taps * self.factor**2)
        self.pad = geometry.upsample_pad(taps.shape[0], self.factor)

    def forward(self, input: Tensor) -> Tensor:
        return upfirdn2d(input, self.kernel, up=self.factor, pad=self.pad)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...


class Downsample(nn.Module):
    """``[H, W] -> [H // factor, W // factor]``; the kernel sums to 1.

    Shape:
        - input: ``[N, C, H, W]``; output: ``[N, C, H // factor, W // factor]``

    Raises:
        TypeError, ValueError: if an argument is at fault, or the kernel is not square.
    """

    kernel: Tensor

    def __init__(self, kernel: Any, factor: int = 2) -> None:
        super().__init__()
        self.factor = arguments.as_rate("factor", factor)
        taps = arguments.make_square_kernel("kernel", kernel)
        self.register_buffer("kernel", taps)
        self.pad = geometry.downsample_pad(taps.shape[0], self.factor)

    def forward(self, input: Tensor) -> Tensor:
        return upfirdn2d(input, self.kernel, down=self.factor, pad=self.pad)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...


class Blur(nn.Module):
    """A filter without a change of rate; ``upsample_factor ** 2`` scales its kernel.

    Shape:
        - input: ``[N, C, H, W]``
        - output: ``[N, C, H + pad_y0 + pad_y1 - kh + 1, W + pad_x0 + pad_x1 - kw + 1]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    kernel: Tensor

    def __init__(self, kernel: Any, pad: Sequence[int], upsample_factor: int = 1) -> None:
        super().__init__()
        scale = arguments.as_rate("upsample_factor", upsample_factor) ** 2
        self.register_buffer("kernel", arguments.make_kernel("kernel", kernel) * scale)
        self.pad = arguments.as_list(pad)
        as_pads(self.pad)  # the checks

    def forward(self, input: Tensor) -> Tensor:
        return upfirdn2d(input, self.kernel, pad=self.pad)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...
