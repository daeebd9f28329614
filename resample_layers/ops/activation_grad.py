# SPDX-License-Identifier: BSD-3-Clause
"""The first-order gradient of what follows the op, with its sums, in one pass over memory.

``upfirdn2d_bias_act_grad`` gives, of z in the formula of epilogue.py,

- the gradient of z divided by the gain, which the caller gives to the taps: it is rounded here, and
  16 bits may not hold it; or, where the op has one tap and leaves the size as it is, that of its
  input, which is tap, scale and gain times it;
- the gradients of bias ``[C]``, noise ``[noise_samples, 1, out_h, out_w]``, noise strength ``[1]``
  and scale ``[N, C]``, sums of the accumulate dtype; each is empty, ``[0]``, where it is not asked
  for: without ``with_bias``, at ``noise_samples`` of 0, without ``noise``, and without ``scaled``.
  ``scaled`` is what the scale multiplies, of the dtype of ``output`` or of its dtype in
  ``native.WIDE``, and is multiplied with the tap where there is one.

It has no autograd rule of its own: where a graph of the gradient is asked for, activation.py takes
the differentiable functions of epilogue.py instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .epilogue import Operands
from .op import Op
from .upfirdn2d import check_one_device

NO_TAPS = None, None


def first_order(
    grad: Tensor,  # [N, C, out_h, out_w], of output
    output: Tensor,  # [N, C, out_h, out_w]
    scaled: Tensor | None,  # where the scale's gradient is asked for
    taps: tuple[Tensor | None, Tensor | None],  # the one tap of either axis, or NO_TAPS
    operands: Operands,
    needs: Sequence[bool],  # bias, noise, noise_strength, scale
    negative_slope: float,
    gain: float,
    clamp: float | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """The first of the list above, and the operands' gradients in their shapes and dtypes."""
    noise = operands.kinds[1]
    samples = noise[0][0] if noise is not None and needs[1] else 0
    result, *sums = BIAS_ACT_GRAD(
        grad,
        output,
        scaled,
        *taps,
        None if taps[0] is None else operands.scale,
        operands.noise,
        operands.strength,
        needs[0],
        samples,
        negative_slope,
        gain,
        clamp,
    )
    grads = [
        total.reshape(kind[0]).to(kind[1]) if need and kind is not None else None
        for total, kind, need in zip(sums, operands.kinds, needs, strict=True)
    ]
    return result, grads


def _empty(
    grad: Tensor,
    output: Tensor,
    scaled: Tensor | None,
    tap_x: Tensor | None,
    tap_y: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    noise_strength: Tensor | None,
    with_bias: bool,
    noise_samples: int,
    negative_slope: float,
    gain: float,
    clamp: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_one_device(output, grad, scaled, tap_x, tap_y, scale, noise, noise_strength)
    native.check_gradient_dtypes(grad, output, scaled)
    samples, channels, height, width = output.shape

    def sums(wanted: bool, *shape: int) -> Tensor:
        return output.new_empty(shape if wanted else 0, dtype=native.accumulate_dtype(output))

    return (
        torch.empty(
            output.shape,
            dtype=output.dtype,
            device=output.device,
            memory_format=native.memory_format(output),
        ),
        sums(with_bias, channels),
        sums(noise_samples != 0, noise_samples, 1, height, width),
        sums(noise is not None, 1),
        sums(scaled is not None, samples, channels),
    )


BIAS_ACT_GRAD = Op(
    "upfirdn2d_bias_act_grad",
    "(Tensor grad, Tensor output, Tensor? scaled, Tensor? tap_x, Tensor? tap_y, Tensor? scale, "
    "Tensor? noise, Tensor? noise_strength, bool with_bias, SymInt noise_samples, "
    "float negative_slope, float gain, float? clamp) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    native.bias_act_grad,
    _empty,
)
