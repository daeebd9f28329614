# SPDX-License-Identifier: BSD-3-Clause
"""What may follow the op in the same pass: scale, noise, bias, leaky ReLU, gain and clamp.

With ``s`` the op's output::

    z   = scale * s + noise_strength * noise + bias
    out = clamp(gain * leaky_relu(z, negative_slope), -clamp, clamp)

``gain`` is positive and ``negative_slope`` not negative, so that the sign of ``out`` tells the
sign of ``z``, and the gradient of ``z`` needs ``out`` alone of what was computed. A value counts as
it was rounded: where ``out`` is 0, or reaches the limit, the gradient is that of a negative or of a
clamped value. The limit is ``clamp`` rounded to the accumulate dtype, and at most the largest
finite number there, so that a clamped result is finite.

The gradient of ``scale`` is a sum of products with ``s``. Where ``scale`` is 0, ``out`` does not
tell ``s``, and where it is small beside noise and bias, rounding hides it. So the op's input is
saved where that gradient is asked for, and ``s`` is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Epilogue(NamedTuple):
    """Operands and constants of one call, checked; absent operands are None."""

    bias: Tensor | None  # [C]
    noise: Tensor | None  # [N or 1, 1, out_h, out_w]
    noise_strength: Tensor | None  # one element; None: 1
    scale: Tensor | None  # [N, C]; None: 1
    negative_slope: float
    gain: float
    clamp: float | None  # largest magnitude

    def tensors(self) -> list[Tensor]:
        return [t for t in self[:4] if t is not None]

    def part(self, batch: slice, channels: slice, rows: slice) -> Epilogue:
        """What concerns these samples, channels and rows of the output."""
        bias, noise, scale = self.bias, self.noise, self.scale
        if noise is not None:
            noise = noise[:, :, rows] if noise.shape[0] == 1 else noise[batch, :, rows]
        return self._replace(
            bias=None if bias is None else bias[channels],
            noise=noise,
            scale=None if scale is None else scale[batch, channels],
        )

    def apply(self, value: Tensor) -> Tensor:
        """The formula in plain torch, on the op's output [N, C, out_h, out_w], accumulate dtype."""
        dtype = value.dtype
        if self.scale is not None:
            value = value * self.scale.to(dtype)[:, :, None, None]
        if self.noise is not None:
            noise = self.noise.to(dtype)
            if self.noise_strength is not None:
                noise = noise * self.noise_strength.reshape(()).to(dtype)
            value = value + noise
        if self.bias is not None:
            value = value + self.bias.to(dtype)[:, None, None]
        value = F.leaky_relu(value, self.negative_slope) * self.gain
        if self.clamp is None:
            return value
        limit = clamp_limit(self.clamp, dtype)
        return value.clamp(-limit, limit)


def clamp_limit(clamp: float, dtype: torch.dtype) -> float:
    """The largest magnitude of a clamped value: at most the largest finite number of ``dtype``."""
    return min(clamp, torch.finfo(dtype).max)


def rounded_limit(clamp: float, dtype: torch.dtype) -> float:
    """The magnitude of a clamped value in an output of ``dtype``, as it was rounded."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return float(torch.tensor(clamp_limit(clamp, wide), dtype=dtype).item())


def activation_grad(
    grad: Tensor,  # [N, C, out_h, out_w], of out
    out: Tensor,  # [N, C, out_h, out_w]
    negative_slope: float,
    clamp: float | None,
) -> Tensor:
    """The gradient of ``z``, divided by the gain: zero where ``out`` was clamped.

    In functions that can be differentiated again. Callers give the gain to what is small, taps
    and sums, so that it costs no pass. The result is of the dtype of ``grad``.
    """
    grad = torch.ops.aten.leaky_relu_backward(grad, out.to(grad.dtype), negative_slope, True)
    if clamp is not None:
        grad = torch.where(out.abs() >= rounded_limit(clamp, out.dtype), 0.0, grad)
    return grad


class Operands(NamedTuple):
    """What the gradients want of a call: values where they are needed, else shapes and dtypes."""

    kinds: tuple[tuple[torch.Size, torch.dtype] | None, ...]  # bias, noise, noise_strength, scale
    noise: Tensor | None  # where the strength's gradient is asked for
    strength: Tensor | None  # where the noise's is
    scale: Tensor | None  # where that of what is scaled is

    @classmethod
    def of(
        cls, operands: Sequence[Tensor | None], needs: Sequence[bool], needs_scaled: bool
    ) -> Operands:
        """Of (bias, noise, noise_strength, scale); ``needs`` says whose gradients are asked for."""
        kinds = tuple(None if t is None else (t.shape, t.dtype) for t in operands)
        _, noise, strength, scale = operands
        return cls(
            kinds,
            noise if needs[2] else None,
            strength if needs[1] else None,
            scale if needs_scaled else None,
        )


def operand_grads(
    grad: Tensor,  # [N, C, out_h, out_w], of activation_grad
    scaled: Tensor | None,  # where the scale's gradient is asked for
    taps: Sequence[Tensor | None],  # numbers that multiply what is scaled
    gain: float,
    operands: Operands,
    needs: Sequence[bool],  # bias, noise, noise_strength, scale
) -> list[Tensor | None]:
    """The gradients of bias, noise, noise strength and scale, in their shapes and dtypes."""
    grads: list[Tensor | None] = [None, None, None, None]
    bias, noise, strength, scale = operands.kinds
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    if bias is not None and needs[0]:
        grads[0] = (grad.sum((0, 2, 3), dtype=dtype) * gain).to(bias[1])
    if noise is not None and (needs[1] or needs[2]):
        pixels = grad.sum(1, keepdim=True, dtype=dtype) * gain
        if noise[0][0] == 1:
            pixels = pixels.sum(0, keepdim=True)
        if needs[1]:
            factor = operands.strength
            of_noise = pixels if factor is None else pixels * factor.reshape(()).to(dtype)
            grads[1] = of_noise.to(noise[1])
        if operands.noise is not None and strength is not None:
            total = (pixels * operands.noise.to(dtype)).sum()
            grads[2] = total.reshape(strength[0]).to(strength[1])
    if scale is not None and scaled is not None:
        # The products are of the accumulate dtype: 16 bits might not hold them
        total = (grad.to(dtype) * scaled).sum((2, 3)) * gain
        for number in taps:
            if number is not None:
                total = total * number.reshape(()).to(dtype)
        grads[3] = total.to(scale[1])
    return grads
