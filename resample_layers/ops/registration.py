# SPDX-License-Identifier: BSD-3-Clause
"""The torch.library operators: schemas, native kernels, fakes, autograd and vmap rules.

Each operator exists twice, with one schema and one set of kernels. ``upfirdn2d`` carries autograd
and vmap rules: compilers and exporters see it. ``_upfirdn2d`` carries none: eager mode calls it
inside the autograd Functions, which are faster and reach every order of gradient. So do
``upfirdn2d_bias_act``, the op with its epilogue, and the kernel's gradient
``upfirdn2d_kernel_grad``.

Native kernels serve every device; a compiled library adds its own under the CPU and CUDA keys
(see extension.py) and changes nothing here.

All this happens once in a process. A reload, and another copy of the same version, use what is
registered; another version refuses to be imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode

from .. import geometry
from ..version import __version__
from . import native
from .epilogue import Operands, activation_grad, operand_grads

NAMESPACE = "resample_layers"
SCHEMAS = {
    "upfirdn2d": (
        "(Tensor input, Tensor kernel, Tensor? taps_y, int[2] up, int[2] down, SymInt[4] pad, "
        "bool flip) -> Tensor"
    ),
    "upfirdn2d_bias_act": (
        "(Tensor input, Tensor kernel, Tensor? taps_y, Tensor? bias, Tensor? noise, "
        "Tensor? noise_strength, int[2] up, int[2] down, SymInt[4] pad, float negative_slope, "
        "float gain, float? clamp) -> Tensor"
    ),
    "upfirdn2d_kernel_grad": (
        "(Tensor input, Tensor grad, int[2] up, int[2] down, SymInt[4] pad, SymInt[2] kernel_size) "
        "-> Tensor"
    ),
}
KERNELS: dict[str, Callable[..., Tensor]] = {
    "upfirdn2d": native.resample,
    "upfirdn2d_bias_act": native.resample_bias_act,
    "upfirdn2d_kernel_grad": native.kernel_grad,
}


class Owner(NamedTuple):
    """Who made the registrations of this process, and what belongs to them.

    Stands at ``torch.ops.resample_layers.owner``, where other copies and versions look for it.
    """

    version: str
    folder: str  # of the package
    sources: str  # a digest of the modules beside this one
    schemas: dict[str, str]
    library: torch.library.Library  # the registrations live as long as this does
    choices: dict[str, Any]  # of extension.py
    deferred: dict[str, Any]  # of extension.py


def _find_owner() -> Owner | None:
    """The owner, if there is one.

    Raises:
        ImportError: if it is of another version, or, in another folder, of other sources.
    """
    owner: Owner | None = getattr(torch.ops.resample_layers, "owner", None)
    if owner is None:
        return None
    if owner.version != __version__:
        found = f"version {__version__} in {FOLDER} after version {owner.version}"
    elif owner.schemas != SCHEMAS or (owner.folder != FOLDER and owner.sources != _sources()):
        found = f"other sources of version {__version__} in {FOLDER} after those"
    else:
        return owner
    raise ImportError(
        f"a process can hold one version of resample_layers, got {found} in {owner.folder}: "
        "remove one, or, after an upgrade, start anew"
    )


def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _library() -> torch.library.Library:
    try:
        return torch.library.Library(NAMESPACE, "DEF")
    except RuntimeError as error:  # of a copy that has no owner, or is being imported by a thread
        raise ImportError(
            f"a process can hold one copy of resample_layers, got {FOLDER} after or beside "
            f"another one: {str(error).splitlines()[0]}"
        ) from error


FOLDER = str(Path(__file__).resolve().parent.parent)
_found = _find_owner()
OWNER = _found or Owner(__version__, FOLDER, _sources(), SCHEMAS, _library(), {}, {})
LIBRARY = OWNER.library
if _found is None:
    for _base, _schema in SCHEMAS.items():
        for _name in (_base, f"_{_base}"):
            LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
            LIBRARY.impl(_name, KERNELS[_base], "CompositeExplicitAutograd")

OP = torch.ops.resample_layers.upfirdn2d.default
RAW = torch.ops.resample_layers._upfirdn2d.default
BIAS_ACT = torch.ops.resample_layers.upfirdn2d_bias_act.default
RAW_BIAS_ACT = torch.ops.resample_layers._upfirdn2d_bias_act.default
KERNEL_GRAD = torch.ops.resample_layers.upfirdn2d_kernel_grad.default
RAW_KERNEL_GRAD = torch.ops.resample_layers._upfirdn2d_kernel_grad.default


def kernel_size(kernel: Tensor, taps_y: Tensor | None) -> tuple[int, int]:
    """(kh, kw) of a kernel [kh, kw], or of the outer product of taps."""
    if kernel.dim() == 2:
        return kernel.shape[0], kernel.shape[1]
    return (kernel if taps_y is None else taps_y).shape[0], kernel.shape[0]


def output_size(
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
) -> tuple[int, int]:
    """(out_h, out_w) of a call."""
    kh, kw = kernel_size(kernel, taps_y)
    height, width = input.shape[2:]
    return (
        geometry.output_size(height, up[1], down[1], pad[2], pad[3], kh),
        geometry.output_size(width, up[0], down[0], pad[0], pad[1], kw),
    )


def raise_in_torchs_words(error: RuntimeError, input: Tensor, size: tuple[int, int]) -> NoReturn:
    """Raise ``error`` of a compiled kernel, or torch's own where memory for its output lacks.

    Between torch and the kernels, the stable ABI passes on neither the type of an error nor, in
    older versions, its words; callers want to catch ``torch.OutOfMemoryError``. So torch is asked
    for the same memory once more: [N, C] of ``input``, ``size`` as (out_h, out_w).
    """
    try:
        torch.empty((*input.shape[:2], *size), dtype=input.dtype, device=input.device)
    except RuntimeError as own:
        raise own from error
    raise error


def split_kernel_grad(
    w: Tensor,  # [kh, kw], the gradient of the 2-D kernel
    kernel: Tensor,
    taps_y: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The chain rule through ``outer(taps_y, taps_x)``; the identity for a 2-D kernel."""
    if kernel.dim() == 2:
        return w.to(kernel.dtype), None
    other = kernel if taps_y is None else taps_y
    grad_x, grad_y = (w * other[:, None]).sum(0), (w * kernel[None, :]).sum(1)
    if taps_y is None:
        return (grad_x + grad_y).to(kernel.dtype), None
    return grad_x.to(kernel.dtype), grad_y.to(taps_y.dtype)


# What comes out, without computing it


def _fake(
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    flip: bool,
) -> Tensor:
    _check_one_device(input, kernel, taps_y)
    n, c = input.shape[:2]
    out_h, out_w = output_size(input, kernel, taps_y, up, down, pad)
    layout = torch.channels_last if native.is_channels_last(input) else torch.contiguous_format
    return torch.empty(
        (n, c, out_h, out_w), dtype=input.dtype, device=input.device, memory_format=layout
    )


def _check_one_device(input: Tensor, *operands: Tensor | None) -> None:
    """A meta operand among real ones would end here, and nothing would be computed."""
    for operand in operands:
        if operand is not None and operand.device != input.device:
            raise ValueError(
                f"all tensors must be on one device, got {input.device} and {operand.device}"
            )


def _fake_bias_act(
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    bias: Tensor | None,
    noise: Tensor | None,
    noise_strength: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    *constants: float | None,
) -> Tensor:
    _check_one_device(input, bias, noise, noise_strength)
    return _fake(input, kernel, taps_y, up, down, pad, False)


def _fake_kernel_grad(
    input: Tensor,
    grad: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    kernel_size: tuple[int, int],
) -> Tensor:
    kw, kh = kernel_size
    return input.new_empty((kh, kw), dtype=native.accumulate_dtype(input, grad))


# Gradients, for compilers: the formulas of autograd.py with the registered operators, where the
# transpose in the input is the operator itself with flip toggled


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, kernel, taps_y, ctx.up, ctx.down, ctx.pad, ctx.flip = inputs
    needs_kernel = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    ctx.save_for_backward(*keep(input, kernel, taps_y, needs_kernel))
    ctx.in_size, ctx.out_size = input.shape[2:], output.shape[2:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, kernel, taps_y = ctx.saved_tensors
    up, down, pad, size = ctx.up, ctx.down, ctx.pad, kernel_size(kernel, taps_y)
    grad_input, grad_kernel, grad_taps_y = None, None, None
    if ctx.needs_input_grad[0]:
        g_pad = geometry.adjoint_pads(ctx.in_size, ctx.out_size, up, down, pad, size)
        grad_input = OP(grad, kernel, taps_y, down, up, g_pad, not ctx.flip)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        w = KERNEL_GRAD(input, grad, up, down, pad, size[::-1])
        grad_kernel, grad_taps_y = split_kernel_grad(
            w.flip(0, 1) if ctx.flip else w, kernel, taps_y
        )
    return grad_input, grad_kernel, grad_taps_y, None, None, None, None


def _setup_bias_act(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, kernel, taps_y, bias, noise, strength, ctx.up, ctx.down, ctx.pad, *rest = inputs
    needs = ctx.needs_input_grad
    operands = Operands.of((bias, noise, strength), needs[3:6])
    ctx.save_for_backward(
        *keep(input, kernel, taps_y, needs[1] or needs[2]),
        output,
        operands.noise,
        operands.strength,
    )
    ctx.in_size, ctx.out_size = input.shape[2:], output.shape[2:]
    ctx.constants, ctx.kinds = rest, operands.kinds  # negative_slope, gain, clamp


def _backward_bias_act(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, kernel, taps_y, output, *values = ctx.saved_tensors
    (slope, gain, clamp), needs = ctx.constants, ctx.needs_input_grad
    grad = activation_grad(grad, output.detach(), slope, clamp)
    up, down, pad, size = ctx.up, ctx.down, ctx.pad, kernel_size(kernel, taps_y)
    grad_input, grad_kernel, grad_taps_y = None, None, None
    if needs[0]:
        g_pad = geometry.adjoint_pads(ctx.in_size, ctx.out_size, up, down, pad, size)
        scaled, other = scale_taps(kernel, taps_y, gain, grad)
        grad_input = OP(grad, scaled, other, down, up, g_pad, True)
    if needs[1] or needs[2]:
        w = KERNEL_GRAD(input, grad, up, down, pad, size[::-1]) * gain
        grad_kernel, grad_taps_y = split_kernel_grad(w, kernel, taps_y)
    grads = operand_grads(grad, gain, Operands(ctx.kinds, *values), needs[3:6])
    return grad_input, grad_kernel, grad_taps_y, *grads, None, None, None, None, None, None


def _setup_kernel_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, grad, ctx.up, ctx.down, ctx.pad, _ = inputs
    ctx.save_for_backward(
        input if ctx.needs_input_grad[1] else None, grad if ctx.needs_input_grad[0] else None
    )
    ctx.in_size, ctx.out_size = input.shape[2:], grad.shape[2:]


def _backward_kernel_grad(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    input, grad = ctx.saved_tensors
    up, down, pad = ctx.up, ctx.down, ctx.pad
    grad_input, grad_grad = None, None
    if ctx.needs_input_grad[0]:
        g_pad = geometry.adjoint_pads(ctx.in_size, ctx.out_size, up, down, pad, v.shape)
        grad_input = OP(grad, v, None, down, up, g_pad, True)
    if ctx.needs_input_grad[1]:
        grad_grad = OP(input, v, None, up, down, pad, False)
    return grad_input, grad_grad, None, None, None, None


def keep(
    x: Tensor,  # what the kernel met
    kernel: Tensor,
    taps_y: Tensor | None,
    needs_kernel: bool,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """What to save of a call: ``x`` for the kernel's gradient alone, and the taps."""
    return (
        x if needs_kernel else None,
        _keep_taps(kernel),
        None if taps_y is None else _keep_taps(taps_y),
    )


def _keep_taps(taps: Tensor) -> Tensor:
    """What to save of a kernel: itself where gradients flow to it, else a copy.

    A layer's buffer may be written between forward and backward with the values it has (DDP
    broadcasts buffers before each forward); the copy has a version counter of its own.
    """
    return taps if taps.requires_grad else taps.clone()


def scale_taps(
    kernel: Tensor, taps_y: Tensor | None, gain: float, grad: Tensor
) -> tuple[Tensor, Tensor | None]:
    """(kernel, taps_y) of ``gain`` times the kernel, as precise as sums over ``grad`` will be."""
    if kernel.dim() == 1 and taps_y is None:
        taps_y = kernel
    return kernel.to(native.accumulate_dtype(grad, kernel)) * gain, taps_y


# Batches of calls. Transforms of the public function take the native walk instead (door 2)


def _vmap(
    op: Any,
    info: Any,
    in_dims: tuple[int | None, ...],
    input: Tensor,
    kernel: Tensor,
    taps_y: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, int]:
    """One kernel for all: fold the batch into N. A kernel each: call by call."""
    if in_dims[1] is None and in_dims[2] is None:
        assert in_dims[0] is not None
        x = input.movedim(in_dims[0], 0)
        return op(x.flatten(0, 1), kernel, taps_y, *rest).unflatten(0, x.shape[:2]), 0
    return _call_by_call(op, info, in_dims, input, kernel, taps_y, *rest)


def _call_by_call(
    op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[Tensor, int]:
    def select(i: int) -> list[Any]:
        pairs = zip(args, in_dims, strict=True)
        return [a.select(d, i) if isinstance(d, int) else a for a, d in pairs]

    return torch.stack([op(*select(i)) for i in range(info.batch_size)]), 0


# Exporters of programs that are exported already: too late for door 1


def _proxy(
    kernel: Callable[..., Tensor],
    mode: ProxyTorchDispatchMode,
    op: Any,
    types: Any,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """What goes into a graph: the operator, but standard operators where ONNX's exporter asks.

    A decomposition in torch's table would do the same, and end every compilation by Inductor where
    the variable CI is set: it wants none for operators that it does not lower.
    """
    if torch.onnx.is_in_onnx_export():
        with mode:
            return kernel(*args, **(kwargs or {}))
    return mode.__torch_dispatch__(op, types, args, kwargs)  # type: ignore[no-untyped-call]


_RULES: tuple[tuple[str, Any, Any, Any, Any], ...] = (
    ("upfirdn2d", _fake, _vmap, _setup, _backward),
    ("upfirdn2d_bias_act", _fake_bias_act, _call_by_call, _setup_bias_act, _backward_bias_act),
    ("upfirdn2d_kernel_grad", _fake_kernel_grad, _call_by_call, _setup_kernel_grad,
     _backward_kernel_grad),
)  # fmt: skip
if _found is None:
    for _base, _fake_op, _batch, _setup_op, _backward_op in _RULES:
        for _name in (_base, f"_{_base}"):
            _full, _overload = f"{NAMESPACE}::{_name}", getattr(torch.ops.resample_layers, _name)
            torch.library.register_fake(_full, _fake_op, lib=LIBRARY)
            torch.library.register_vmap(_full, partial(_batch, _overload.default), lib=LIBRARY)
            torch.library.register_torch_dispatch(
                _full, ProxyTorchDispatchMode, partial(_proxy, KERNELS[_base]), lib=LIBRARY
            )
        torch.library.register_autograd(
            f"{NAMESPACE}::{_base}", _backward_op, setup_context=_setup_op, lib=LIBRARY
        )
    vars(torch.ops.resample_layers)["owner"] = OWNER  # complete
