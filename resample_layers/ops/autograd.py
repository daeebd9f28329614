# SPDX-License-Identifier: BSD-3-Clause
"""Reverse-mode gradients of every order, for eager mode.

With ``F(x, k)`` the op, ``B(g, k)`` its transpose in ``x`` and ``W(x, g)`` its transpose in ``k``::

    F(x, k):  d/dx = B(g, k)    d/dk = W(x, g)
    B(g, k):  d/dg = F(v, k)    d/dk = W(v, g)        v: the gradient of B's output
    W(x, g):  d/dx = B(g, v)    d/dg = F(x, v)        v: the gradient of W's output

Each line uses only the three, so the family is closed and no order is cut off. ``B`` is ``F`` with
``up`` and ``down`` swapped, the kernel flipped and the pads of :func:`geometry.adjoint_pad`.
``W`` gives the gradient of a 2-D kernel; for ``outer(taps_y, taps_x)`` the chain rule contracts
it with the other taps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import geometry
from . import native
from .epilogue import Operands, activation_grad, operand_grads
from .registration import (
    KERNEL_GRAD,
    OP,
    RAW,
    RAW_BIAS_ACT,
    RAW_KERNEL_GRAD,
    keep,
    kernel_size,
    raise_in_torchs_words,
    scale_taps,
    split_kernel_grad,
)

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


class UpFirDn2d(torch.autograd.Function):
    """The op as an autograd Function.

    ``UpFirDn2d.apply(input, kernel, up, down, pad, taps_y=None)`` with ``input`` [N, C, H, W],
    ``kernel`` [kh, kw] or [kw], ``up`` and ``down`` as ``(x, y)``, ``pad`` as
    ``(x0, x1, y0, y1)``; ``taps_y`` [kh] goes with a separable ``kernel`` [kw] (None: the same
    taps). Gives gradients to ``input``, ``kernel`` and ``taps_y``. Nothing is checked here:
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
        out: Tensor = RAW(input, kernel, taps_y, up, down, pad, False)
        # It has as many entries as arguments were passed
        ctx.needs_taps_y = taps_y is not None and ctx.needs_input_grad[5]
        needs_kernel = ctx.needs_input_grad[1] or ctx.needs_taps_y
        ctx.save_for_backward(*keep(input, kernel, taps_y, needs_kernel))
        ctx.call = up, down, pad, input.shape, out.shape[2:]
        return out

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, kernel, taps_y = ctx.saved_tensors
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input = _backward(grad_output, kernel, taps_y, ctx)
        grad_kernel, grad_taps_y = None, None
        if ctx.needs_input_grad[1] or ctx.needs_taps_y:
            w = _kernel_grad(input, grad_output, kernel, taps_y, ctx)
            grad_kernel, grad_taps_y = split_kernel_grad(w, kernel, taps_y)
        return grad_input, grad_kernel, None, None, None, grad_taps_y


class UpFirDn2dBackward(torch.autograd.Function):
    """The gradient of the op in its input, itself differentiable.

    ``UpFirDn2dBackward.apply(grad_output, kernel, grad_kernel, up, down, pad, g_pad, in_size,
    out_size, taps_y=None)``: ``up``, ``down`` and ``pad`` are the op's; ``grad_kernel`` is the
    flipped kernel, or None to read ``kernel`` (and ``taps_y``) backwards; ``g_pad``
    ``(x0, x1, y0, y1)`` comes from :func:`geometry.adjoint_pads`; ``in_size`` is the shape of the
    op's input, ``out_size`` ``(out_h, out_w)``. Gives gradients to ``grad_output``, ``kernel``
    and ``taps_y``. The kernel counts once: ``grad_kernel`` holds the same values, so it gets no
    gradient of its own.
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
        # It has as many entries as arguments were passed
        ctx.needs_taps_y = taps_y is not None and ctx.needs_input_grad[9]
        needs_kernel = ctx.needs_input_grad[1] or ctx.needs_taps_y
        ctx.save_for_backward(*keep(grad_output, kernel, taps_y, needs_kernel))
        ctx.call = up, down, pad, in_size, out_size
        grad = grad_output.reshape(in_size[0], in_size[1], out_size[0], out_size[1])
        if grad_kernel is not None and taps_y is None:
            out: Tensor = RAW(grad, grad_kernel, None, down, up, g_pad, False)
        else:
            out = RAW(grad, kernel, taps_y, down, up, g_pad, True)
        return out

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_output, kernel, taps_y = ctx.saved_tensors
        grad_grad_output = None
        if ctx.needs_input_grad[0]:
            grad_grad_output = _forward(v, kernel, taps_y, ctx)
        grad_kernel, grad_taps_y = None, None
        if ctx.needs_input_grad[1] or ctx.needs_taps_y:
            w = _kernel_grad(v, grad_output, kernel, taps_y, ctx)
            grad_kernel, grad_taps_y = split_kernel_grad(w, kernel, taps_y)
        return grad_grad_output, grad_kernel, *(None,) * 7, grad_taps_y


class UpFirDn2dBiasAct(torch.autograd.Function):
    """The op and its epilogue (see :mod:`resample_layers.ops.epilogue`) as an autograd Function.

    ``UpFirDn2dBiasAct.apply(input, kernel, taps_y, bias, noise, noise_strength, up, down, pad,
    negative_slope, gain, clamp)``. Gives gradients to the six tensors. Its backward is the
    activation's, found from the output, and then that of the op.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        kernel: Tensor,
        taps_y: Tensor | None,
        bias: Tensor | None,
        noise: Tensor | None,
        noise_strength: Tensor | None,
        up: Pair,
        down: Pair,
        pad: Pads,
        *constants: Any,
    ) -> Tensor:
        out: Tensor = RAW_BIAS_ACT(
            input, kernel, taps_y, bias, noise, noise_strength, up, down, pad, *constants
        )
        needs = ctx.needs_input_grad
        operands = Operands.of((bias, noise, noise_strength), needs[3:6])
        ctx.save_for_backward(
            *keep(input, kernel, taps_y, needs[1] or needs[2]),
            out,
            operands.noise,
            operands.strength,
        )
        ctx.call = up, down, pad, input.shape, out.shape[2:]
        ctx.constants, ctx.kinds = constants, operands.kinds
        return out

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, kernel, taps_y, out, *values = ctx.saved_tensors
        (slope, gain, clamp), needs = ctx.constants, ctx.needs_input_grad
        grad = activation_grad(grad_output, out.detach(), slope, clamp)
        grad_input, grad_kernel, grad_taps_y = None, None, None
        if needs[0]:
            scaled = scale_taps(kernel, taps_y, gain, grad)
            grad_input = _backward(grad, *scaled, ctx)
        if needs[1] or needs[2]:
            w = _kernel_grad(input, grad, kernel, taps_y, ctx) * gain
            grad_kernel, grad_taps_y = split_kernel_grad(w, kernel, taps_y)
        grads = operand_grads(grad, gain, Operands(ctx.kinds, *values), needs[3:6])
        return grad_input, grad_kernel, grad_taps_y, *grads, None, None, None, None, None, None


class UpFirDn2dKernelGrad(torch.autograd.Function):
    """``W(input, grad)`` [kh, kw] of the accumulate dtype, differentiable in both arguments.

    ``UpFirDn2dKernelGrad.apply(input, grad, up, down, pad, kernel_size)`` with ``kernel_size``
    as ``(kw, kh)``.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, grad: Tensor, up: Pair, down: Pair, pad: Pads, size: Pair
    ) -> Tensor:
        ctx.save_for_backward(
            input if ctx.needs_input_grad[1] else None, grad if ctx.needs_input_grad[0] else None
        )
        ctx.call = up, down, pad, input.shape, grad.shape[2:]
        out: Tensor = RAW_KERNEL_GRAD(input, grad, up, down, pad, size)
        return out

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, grad = ctx.saved_tensors
        grad_input, grad_grad = None, None
        if ctx.needs_input_grad[0]:
            grad_input = _backward(grad, v, None, ctx)
        if ctx.needs_input_grad[1]:
            grad_grad = _forward(input, v, None, ctx)
        return grad_input, grad_grad, None, None, None, None


# F, B and W of the formulas above, as a backward pass calls them. A graph of Functions may be
# differentiated under a transform that was not there when it was made; a Function inside would
# refuse (torch.func, dual numbers) or lose its own graph silently (``is_grads_batched``), so each
# finds its door anew


def _forward(x: Tensor, kernel: Tensor, taps_y: Tensor | None, ctx: Any) -> Tensor:
    up, down, pad, _, _ = ctx.call
    if native.is_differentiated_elsewhere():
        return native.resample(x, kernel, taps_y, up, down, pad)
    try:
        if _is_batched(x, kernel, taps_y):
            out: Tensor = OP(x, kernel, taps_y, up, down, pad, False)
        elif torch.is_grad_enabled():
            out = UpFirDn2d.apply(x, kernel, up, down, pad, taps_y)
        else:
            out = RAW(x, kernel, taps_y, up, down, pad, False)
        return out
    except RuntimeError as error:
        raise_in_torchs_words(error, x, ctx.call[4])


def _backward(grad: Tensor, kernel: Tensor, taps_y: Tensor | None, ctx: Any) -> Tensor:
    up, down, pad, in_size, out_size = ctx.call
    g_pad = geometry.adjoint_pads(in_size[2:], out_size, up, down, pad, kernel_size(kernel, taps_y))
    if native.is_differentiated_elsewhere():
        return native.resample(grad, kernel, taps_y, down, up, g_pad, True)
    try:
        if _is_batched(grad, kernel, taps_y):
            out: Tensor = OP(grad, kernel, taps_y, down, up, g_pad, True)
        elif torch.is_grad_enabled():
            out = UpFirDn2dBackward.apply(
                grad, kernel, None, up, down, pad, g_pad, in_size, out_size, taps_y
            )
        else:
            out = RAW(grad, kernel, taps_y, down, up, g_pad, True)
        return out
    except RuntimeError as error:
        raise_in_torchs_words(error, grad, in_size[2:])


def _kernel_grad(
    x: Tensor, grad: Tensor, kernel: Tensor, taps_y: Tensor | None, ctx: Any
) -> Tensor:
    kh, kw = kernel_size(kernel, taps_y)
    rest = *ctx.call[:3], (kw, kh)
    if native.is_differentiated_elsewhere():
        return native.kernel_grad(x, grad, *rest)
    if _is_batched(x, grad, None):
        w: Tensor = KERNEL_GRAD(x, grad, *rest)
    elif torch.is_grad_enabled():
        w = UpFirDn2dKernelGrad.apply(x, grad, *rest)
    else:
        w = RAW_KERNEL_GRAD(x, grad, *rest)
    return w


def _is_batched(*tensors: Tensor | None) -> bool:
    """Whether the legacy vmap of ``is_grads_batched`` is at work."""
    is_batched = torch._C._functorch.is_legacy_batchedtensor
    return any(t is not None and is_batched(t) for t in tensors)
