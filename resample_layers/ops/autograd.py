# SPDX-License-Identifier: BSD-3-Clause
"""The op and its gradient as autograd Functions, with the arguments that other codes give them.

Both are :data:`upfirdn2d.UPFIRDN2D` with the arguments in another order: the gradient is the op
with ``up`` and ``down`` swapped and the kernel flipped. Their results and gradients are the op's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .upfirdn2d import UPFIRDN2D, Pads, Pair, backward, setup


class UpFirDn2d(torch.autograd.Function):
    """The op as an autograd Function.

    ``UpFirDn2d.apply(input, kernel, up, down, pad, taps_y=None)`` with ``input`` [N, C, H, W],
    ``kernel`` [kh, kw] or [kw], ``up`` and ``down`` as ``(x, y)``, ``pad`` as
    ``(x0, x1, y0, y1)``; ``taps_y`` [kh] goes with a separable ``kernel`` [kw] (None: the same
    taps). ``input``, ``kernel`` and ``taps_y`` get gradients. Nothing is checked here:
    :func:`resample_layers.ops.upfirdn2d` does that.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        kernel: Tensor,
        up: Pair,
        down: Pair,
        pad: Pads,
        taps_y: Tensor | None = None,
    ) -> Tensor:
        needs, taps = _taps(ctx.needs_input_grad, 5, kernel, taps_y)
        args = (input, *taps, up, down, pad, False)
        out = UPFIRDN2D.compute(*args)
        _keep(ctx, needs, input, args, out, taps_y is not None)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_input, grad_kernel, grad_taps_y = _grads(ctx, grad_output)
        return grad_input, grad_kernel, None, None, None, grad_taps_y

    if TYPE_CHECKING:  # torch's has no types

        @classmethod
        def apply(  # type: ignore[override]
            cls,
            input: Tensor,
            kernel: Tensor,
            up: Pair,
            down: Pair,
            pad: Pads,
            taps_y: Tensor | None = None,
        ) -> Tensor: ...


class UpFirDn2dBackward(torch.autograd.Function):
    """The gradient of the op in its input, itself differentiable.

    ``UpFirDn2dBackward.apply(grad_output, kernel, grad_kernel, up, down, pad, g_pad, in_size,
    out_size, taps_y=None)``: ``up``, ``down`` and ``pad`` are the op's; ``grad_kernel`` is the
    flipped kernel, [kh, kw] or [taps], or None to read ``kernel`` (and ``taps_y``) backwards;
    ``g_pad`` ``(x0, x1, y0, y1)`` comes from :func:`resample_layers.geometry.adjoint_pads`;
    ``in_size`` is the shape of the op's input, ``out_size`` is ``(out_h, out_w)``. ``grad_output``,
    ``kernel`` and ``taps_y`` get gradients. The kernel counts once: ``grad_kernel`` holds the same
    values, so it gets no gradient of its own.

    Raises:
        ValueError: if ``grad_kernel`` comes with ``taps_y``, since it is one tensor for two.
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad_output: Tensor,
        kernel: Tensor,
        grad_kernel: Tensor | None,
        up: Pair,
        down: Pair,
        pad: Pads,
        g_pad: Pads,
        in_size: torch.Size,
        out_size: Pair,
        taps_y: Tensor | None = None,
    ) -> Tensor:
        if grad_kernel is not None and taps_y is not None:
            raise ValueError(
                "grad_kernel must be None where taps_y is given, got shapes "
                f"{tuple(grad_kernel.shape)} and {tuple(taps_y.shape)}"
            )
        needs, taps = _taps(ctx.needs_input_grad, 9, kernel, taps_y)
        grad = grad_output.reshape(*in_size[:2], *out_size)
        call = (down, up, g_pad)
        if grad_kernel is None:
            out = UPFIRDN2D.compute(grad, *taps, *call, True)
        else:
            out = UPFIRDN2D.compute(grad, *_both(grad_kernel, None), *call, False)
        _keep(ctx, needs, grad_output, (grad, *taps, *call, True), out, taps_y is not None)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_grad_output, grad_kernel, grad_taps_y = _grads(ctx, v)
        return grad_grad_output, grad_kernel, *(None,) * 7, grad_taps_y

    if TYPE_CHECKING:  # torch's has no types

        @classmethod
        def apply(  # type: ignore[override]
            cls,
            grad_output: Tensor,
            kernel: Tensor,
            grad_kernel: Tensor | None,
            up: Pair,
            down: Pair,
            pad: Pads,
            g_pad: Pads,
            in_size: torch.Size,
            out_size: Pair,
            taps_y: Tensor | None = None,
        ) -> Tensor: ...


def _both(kernel: Tensor, taps_y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(kernel, taps_y) as the op has them: 1-D taps that come alone serve both axes."""
    return kernel, kernel if taps_y is None and kernel.dim() == 1 else taps_y


def _taps(
    asked: tuple[bool, ...],  # of each argument that was passed; optional ones may be missing
    last: int,  # where taps_y stands among the arguments
    kernel: Tensor,
    taps_y: Tensor | None,
) -> tuple[tuple[bool, bool, bool], tuple[Tensor, Tensor | None]]:
    """Which gradients the op is asked for (input, kernel, taps_y), and its taps."""
    in_y = asked[1] if taps_y is None and kernel.dim() == 1 else len(asked) > last and asked[last]
    return (asked[0], asked[1], in_y), _both(kernel, taps_y)


def _keep(
    ctx: Any,
    needs: tuple[bool, bool, bool],
    passed: Tensor,  # the first argument as the caller passed it
    args: tuple[Any, ...],  # those of the op
    out: Tensor,
    has_taps_y: bool,
) -> None:
    (input, *taps), constants = setup(needs, args, out)
    # What is saved must be what was passed, or a second gradient would not flow to it
    ctx.save_for_backward(None if input is None else passed, *taps)
    ctx.call = needs, constants, passed.shape, args[0].shape, has_taps_y


def _grads(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, kernel and taps_y; taps that came alone get the sum of both axes."""
    needs, constants, passed, shape, has_taps_y = ctx.call
    input, *taps = ctx.saved_tensors
    saved = (None if input is None else input.reshape(shape), *taps)
    grad_input, grad_kernel, grad_taps_y = backward(needs, saved, constants, grad)
    if grad_input is not None:
        grad_input = grad_input.reshape(passed)
    if has_taps_y or grad_kernel is None or grad_taps_y is None:
        return grad_input, grad_kernel, grad_taps_y
    return grad_input, grad_kernel + grad_taps_y, None
