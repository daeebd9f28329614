# SPDX-License-Identifier: BSD-3-Clause
"""One object for an op: everything that torch must know of it, and the door that a call takes.

An op is stated by four functions: what it computes in plain torch (``native``), what its result
looks like (``fake``), what its gradient needs (``setup``) and its gradient (``backward``); and by a
fifth, ``vmap``, where a batch can be one call. An op that computes a first-order gradient in one
pass is stated by the first two alone: torch differentiates its ``native``. From these one
:class:`Op` makes

- the registered operator ``resample_layers::name``, with autograd and vmap rules, which
  compilers and exporters see;
- the raw operator ``resample_layers::_name``, the same without a gradient;
- an autograd Function over the raw operator, which is faster in eager mode and is the autograd
  rule of the registered operator.

``native`` serves every device. A compiled library adds kernels of its own for its device (see
extension.py) and changes nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import unwrap
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode

from .modes import is_differentiated_elsewhere, is_tracing
from .owner import NAMESPACE, claim, settle

Grads = tuple["Tensor | None", ...]
Setup = Callable[[Sequence[bool], tuple[Any, ...], Any], tuple[tuple["Tensor | None", ...], Any]]
Backward = Callable[[Sequence[bool], Sequence[Any], Any, Tensor], Grads]

OPS: dict[str, Op] = {}
"""Every op of the package, by its name."""

_is_batched: Callable[[Any], bool] = torch._C._functorch.is_legacy_batchedtensor
_backward_pass: Callable[[], int] = torch._C._current_graph_task_id  # negative where none runs


class Op:
    """One op. A call takes the arguments of its schema, checks none of them, and chooses a door.

    Args:
        name: the name of the registered operator; the raw operator has ``_`` before it.
        schema: the arguments in torch's notation, tensors first, and a tensor or a tuple of tensors
            as result; an op with a gradient gives one tensor. A call passes all arguments by
            position; the public function knows the defaults.
        native: the op in plain torch, on any device, differentiable to any order. It sums in
            :func:`native.accumulate_dtype`, rounds once, and gives a new tensor, never an
            argument or a view of one.
        fake: an empty tensor of the shape, dtype, device and layout that ``native`` gives. It is
            asked with real tensors, too, where memory is lacking.
        setup: ``setup(needs, inputs, output)`` gives ``(saved, constants)``, the tensors and
            the other values that ``backward`` wants. ``needs[i]`` says whether the gradient of
            ``inputs[i]`` is asked for; it is False for an absent tensor. Save inputs or the output
            themselves: a tensor that ``setup`` computes has no graph, and the second order would be
            wrong without a word. See :func:`upfirdn2d.keep_taps` for buffers that may be written
            between forward and backward.
        backward: ``backward(needs, saved, constants, grad)`` gives the gradient of each leading
            tensor in its dtype, None where none is asked for or the tensor is absent. It is made of
            ops and of torch's functions, so that it can be differentiated again. Without ``setup``
            and ``backward``, a call whose gradient is asked for computes ``native``, and torch
            differentiates that.
        vmap: ``vmap(op, info, in_dims, *args)``, torch.library's rule with the operator before
            it; without one, a batch is computed call by call.

    Raises:
        ImportError: if this process holds another op of that name.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        native: Callable[..., Any],
        fake: Callable[..., Any],
        setup: Setup | None = None,
        backward: Backward | None = None,
        vmap: Callable[..., tuple[Any, Any]] | None = None,
    ) -> None:
        self.name, self.schema = name, schema
        self.native, self.fake = native, fake
        library = claim(name, schema)
        if library is not None:
            # Autograd passes the raw operator by, and is still on behind it: without no_grad, the
            # functions of torch in `native` would record a graph
            for full in (name, f"_{name}"):
                library.impl(full, torch.no_grad()(native), "CompositeExplicitAutograd")
        self.registered = getattr(torch.ops.resample_layers, name).default
        packet = getattr(torch.ops.resample_layers, f"_{name}")
        self.raw = packet.default
        # The builtin behind `raw`, without the frame of OpOverload.__call__, which costs as much as
        # the checks of an input. Dynamo cannot trace it
        self._call_raw: Callable[..., Any] = unwrap(getattr(self.raw, "_op", self.raw))
        self.raw._op = packet._op = self._guard()
        kinds = [str(argument.type) for argument in self.registered._schema.arguments]
        self.tensors = sum(kind in ("Tensor", "Optional[Tensor]") for kind in kinds)
        self._apply = self._apply_native
        if setup is not None and backward is not None:
            self._apply = self._function(setup, backward).apply
        if library is not None:
            self._add_rules(library, vmap or call_by_call)
            settle(name, schema)
        OPS[name] = self

    def __call__(self, *args: Any) -> Any:
        """Compute by the first of four doors that is open; each is there for a measured reason.

        1. ONNX's and TorchScript's exporters want standard operators: native.
        2. ``torch.func`` and forward mode differentiate outside of autograd, and the Function has
           no rule for them: native, under a compiler too, so that it fuses the functions of torch.
        3. A compiler wants one operator for all sizes, with a fake: the registered one. So does
           the vmap of ``is_grads_batched``, which an autograd Function does not survive.
        4. Eager mode: the Function where a gradient is asked for, else the raw operator.
        """
        if torch.compiler.is_compiling():
            if is_differentiated_elsewhere() or torch.onnx.is_in_onnx_export():
                return self.native(*args)
            return self.registered(*args)
        if is_tracing() or is_differentiated_elsewhere():
            return self.native(*args)
        if torch.is_grad_enabled():
            tensors = args[: self.tensors]
            # Only backward passes run under that vmap, where no tensor tells what it requires
            if _backward_pass() >= 0 and any(
                tensor is not None and _is_batched(tensor) for tensor in tensors
            ):
                return self.registered(*args)
            for tensor in tensors:
                if tensor is not None and tensor.requires_grad:
                    return self._apply(*tensors, args[self.tensors :])
        try:
            return self._call_raw(*args)
        except (RuntimeError, MemoryError) as error:
            self._raise(error, args)

    def compute(self, *args: Any) -> Any:
        """The raw operator, with one sentence before torch's own words where memory is lacking.

        Functions of other modules call it. A compiler that traces one gets the registered operator.
        """
        if torch.compiler.is_compiling():
            return self.registered(*args)
        try:
            return self._call_raw(*args)
        except (RuntimeError, MemoryError) as error:
            self._raise(error, args)

    def _guard(self) -> Callable[..., Any]:
        """The raw operator as ``torch.ops`` gives it to other callers, with door 2 before it.

        Without a rule for autograd, an operator gives no tangent and no gradient of ``torch.func``,
        and raises no error. Such a rule would make each call of ours slower, so that the check
        stands here, in Python, where our calls do not pass.
        """
        raw, registered = self._call_raw, self.registered

        @wraps(raw)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return (registered if is_differentiated_elsewhere() else raw)(*args, **kwargs)

        return guarded

    # The gradient in eager mode and under compilers

    def _apply_native(self, *packed: Any) -> Any:
        return self.native(*packed[:-1], *packed[-1])

    def _function(self, setup: Setup, rule: Backward) -> Any:
        """The Function. Each argument makes its call slower: it takes the tensors and one tuple."""
        raw = self._call_raw

        def forward(ctx: Any, *packed: Any) -> Tensor:
            args = packed[:-1] + packed[-1]
            try:
                out: Tensor = raw(*args)
            except (RuntimeError, MemoryError) as error:
                self._raise(error, args)
            saved, ctx.constants = setup(ctx.needs_input_grad, args, out)
            ctx.save_for_backward(*saved)
            return out

        rules = {"forward": staticmethod(forward), "backward": staticmethod(_backward(rule))}
        return type(self.name, (torch.autograd.Function,), rules)

    # What torch.library must know

    def _add_rules(
        self,
        library: torch.library.Library,
        vmap: Callable[..., tuple[Any, Any]],
    ) -> None:
        library.impl(self.name, self._differentiate, "Autograd")
        # Without this, autograd looks at every argument of each call of an operator without a rule
        library.impl(f"_{self.name}", torch.library.fallthrough_kernel, "Autograd")
        torch.library.register_vmap(self.registered, partial(vmap, self.registered), lib=library)
        for name in (self.name, f"_{self.name}"):
            full = f"{NAMESPACE}::{name}"
            torch.library.register_fake(full, self.fake, lib=library)
            torch.library.register_torch_dispatch(
                full, ProxyTorchDispatchMode, self._trace, lib=library
            )

    def _differentiate(self, *args: Any) -> Any:
        """The autograd rule of the registered operator, which graphs call: doors 2 and 4 again.

        A rule by ``torch.library.register_autograd`` would give no tangent in forward mode, raise
        no error there, and be refused by ``torch.func.grad``.
        """
        if is_differentiated_elsewhere():
            return self.native(*args)
        tensors = args[: self.tensors]
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
            return self._apply(*tensors, args[self.tensors :])
        return self._call_raw(*args)

    def _trace(
        self,
        mode: ProxyTorchDispatchMode,
        op: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Put the operator into a graph; or standard operators, where ONNX's exporter asks.

        The graph holds the registered operator, whichever is called: a graph may be differentiated
        later, and the raw operator has no gradient. ``make_fx(pre_dispatch=True)`` asks no such
        rule; ``torch.export``, which traces so too, gets the registered operator by door 3.

        A program that was exported before ONNX's exporter sees it came through door 3. A
        decomposition in torch's table would do the same, and would end every compilation by
        Inductor where the variable CI is set: Inductor wants none for operators that it does not
        lower.
        """
        if torch.onnx.is_in_onnx_export():
            with mode:
                return self.native(*args, **(kwargs or {}))
        op = self.registered if op is self.raw else op
        return mode.__torch_dispatch__(op, types, args, kwargs)  # type: ignore[no-untyped-call]

    # Errors

    def _raise(self, error: RuntimeError | MemoryError, args: tuple[Any, ...]) -> NoReturn:
        """Raise ``error``, or, where memory is lacking, one that says so in its first sentence.

        Between torch and the kernels, the stable ABI passes on neither the type of an error nor,
        in older versions, its words; callers want to catch ``torch.OutOfMemoryError``. So torch
        is asked for the memory of the result once more. Where the kernels lack scratch memory,
        C++ throws ``std::bad_alloc``, which Python gets as a MemoryError; callers get the
        RuntimeError that torch has for every lack of memory on the CPU.
        """
        if isinstance(error, MemoryError):
            cause = RuntimeError(f"can't allocate memory: {error!r}")
        else:
            cause = error
            if type(error) in (RuntimeError, torch.OutOfMemoryError) and not (
                _is_out_of_memory(error)
            ):
                try:
                    self.fake(*args)
                except RuntimeError as own:
                    cause = own
        if type(cause) not in (RuntimeError, torch.OutOfMemoryError) or not _is_out_of_memory(
            cause
        ):
            raise error
        shapes = ", ".join(str(list(arg.shape)) for arg in args if isinstance(arg, Tensor))
        raise type(cause)(
            f"{self.name} ran out of memory on {args[0].device}, with tensors of shapes {shapes}\n"
            f"{str(cause).splitlines()[0]}"  # frames of C++ follow
        ) from None


def _backward(rule: Backward) -> Callable[..., Grads]:
    """What autograd calls; the last argument of the Function is the tuple without a gradient.

    A plain function: Dynamo refuses methods when it compiles a backward pass.
    """

    def backward(ctx: Any, grad: Tensor) -> Grads:
        return *rule(ctx.needs_input_grad, ctx.saved_tensors, ctx.constants, grad), None

    return backward


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The third is Windows'
    words = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")
    return any(part in str(error) for part in words)


def call_by_call(
    op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[Any, Any]:
    """A vmap rule for every op: one call for each element of the batch."""

    def select(i: int) -> list[Any]:
        pairs = zip(args, in_dims, strict=True)
        return [a.select(d, i) if isinstance(d, int) else a for a, d in pairs]

    results = [op(*select(i)) for i in range(info.batch_size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = tuple(torch.stack(column) for column in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)
