# SPDX-License-Identifier: BSD-3-Clause
"""Compilers, exporters and transforms: each gets what it can work with, and right results."""

import pytest
import torch
import torch._dynamo.testing
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from resample_layers import UpFirDnDownsample, UpFirDnUpsample
from resample_layers.ops import native, upfirdn2d, upfirdn2d_native
from resample_layers.ops import registration as reg

UP, DOWN, PAD = (2, 1), (1, 2), (2, 1, 1, 2)


def call(x, k):
    return upfirdn2d(x, k, UP, DOWN, PAD)


def reference(x, k):
    return upfirdn2d_native(x, k, *UP, *DOWN, *PAD)


@pytest.fixture
def args(device):
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, device=device)
    return x, torch.randn(3, 4, dtype=torch.float64, device=device)


def loss(x, k):
    return call(x, k).pow(3).sum()


# torch.func and forward mode


def test_jvp(args):
    x, k = args
    dx, dk = torch.randn_like(x), torch.randn_like(k)
    out, tangent = jvp(call, (x, k), (dx, dk))
    torch.testing.assert_close(out, call(x, k))
    torch.testing.assert_close(tangent, call(dx, k) + call(x, dk))


def test_dual_numbers(args):
    x, k = args
    dx = torch.randn_like(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(call(forward_ad.make_dual(x, dx), k)).tangent
    torch.testing.assert_close(tangent, call(dx, k))


@pytest.mark.parametrize("wrt", [0, 1], ids=["input", "kernel"])
def test_dual_numbers_that_require_grad(wrt, args):
    """Forward over reverse: door 2 stands before the Functions, which have no tangent."""
    primal = args[wrt].clone().requires_grad_()
    tangent = torch.randn_like(primal)
    pair = [*args]
    with forward_ad.dual_level():
        pair[wrt] = forward_ad.make_dual(primal, tangent)
        out = call(*pair)
        ours = forward_ad.unpack_dual(out).tangent
    pair[wrt] = tangent
    torch.testing.assert_close(ours, call(*pair))


def test_grad_and_vjp(args):
    x, k = args
    leaves = x.clone().requires_grad_(), k.clone().requires_grad_()
    expected = torch.autograd.grad(loss(*leaves), leaves)
    for ours, theirs in zip(grad(loss, (0, 1))(x, k), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    _, pull = vjp(loss, x, k)
    for ours, theirs in zip(pull(x.new_ones(())), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_jacobians(args):
    x, k = args[0][:1, :1], args[1]
    for argnums in (0, 1):
        forward, reverse = (jac(call, argnums)(x, k) for jac in (jacfwd, jacrev))
        torch.testing.assert_close(forward, reverse)
        basis = torch.eye((x, k)[argnums].numel(), dtype=x.dtype, device=x.device)
        columns = [call(e.view_as(x), k) if argnums == 0 else call(x, e.view_as(k)) for e in basis]
        expected = torch.stack(columns, -1).reshape(forward.shape)
        torch.testing.assert_close(forward, expected)


def test_hessian(args):
    x, k = args[0][:1, :1, :3, :3], args[1]
    h = hessian(loss)(x, k).reshape(9, 9)
    torch.testing.assert_close(h, h.T)
    assert h.abs().max() > 0


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (1, None), (2, 1)])
def test_vmap(in_dims, args, recwarn):
    x, k = torch.randn(5, *args[0].shape, dtype=torch.float64), torch.randn(5, *args[1].shape)
    x, k = x.to(args[0]), k.to(args[1])
    xs, ks = (x if in_dims[0] is not None else x[0]), (k if in_dims[1] is not None else k[0])
    moved = (
        xs.movedim(0, in_dims[0]) if in_dims[0] else xs,
        ks.movedim(0, in_dims[1]) if in_dims[1] else ks,
    )
    expected = torch.stack(
        [call(x[i] if in_dims[0] is not None else xs, k[i] if in_dims[1] is not None else ks)
         for i in range(5)]
    )  # fmt: skip
    torch.testing.assert_close(vmap(call, in_dims)(*moved), expected)
    for op in (reg.OP, reg.RAW):
        ours = vmap(lambda x, k: op(x, k, None, UP, DOWN, PAD, False), in_dims)(*moved)  # noqa: B023
        torch.testing.assert_close(ours, expected)
    assert not recwarn.list


def test_vmap_of_the_input_alone_is_one_call(args, monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    calls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    x, k = args
    with Watch():
        vmap(lambda x: reg.OP(x, k, None, UP, DOWN, PAD, False))(torch.stack([x, x, x]))
    assert calls.count(reg.OP) == 1


def test_vmap_of_separable_taps(device):
    x = torch.randn(4, 1, 2, 5, 6, device=device)
    taps = torch.randn(4, 3, device=device)
    expected = torch.stack([upfirdn2d(x[i], taps[i], 2) for i in range(4)])
    torch.testing.assert_close(vmap(lambda x, t: upfirdn2d(x, t, 2))(x, taps), expected)
    ours = vmap(lambda x, t: reg.OP(x, t, None, (2, 2), (1, 1), (0,) * 4, False))(x, taps)
    torch.testing.assert_close(ours, expected)


def test_vmap_of_the_kernel_gradient(args):
    x = torch.stack([args[0], args[0].flip(0)])
    g = torch.randn(2, *call(*args).shape, dtype=torch.float64, device=x.device)
    expected = torch.stack(
        [reg.RAW_KERNEL_GRAD(a, b, UP, DOWN, PAD, (4, 3)) for a, b in zip(x, g, strict=True)]
    )
    for op in (reg.KERNEL_GRAD, reg.RAW_KERNEL_GRAD):
        ours = vmap(lambda a, b: op(a, b, UP, DOWN, PAD, (4, 3)))(x, g)  # noqa: B023
        torch.testing.assert_close(ours, expected)


def test_per_sample_gradients(args):
    x, k = args
    ours = vmap(grad(lambda k, x: loss(x[None], k)), (None, 0))(k, x)
    expected = torch.stack([grad(lambda k: loss(x[i : i + 1], k))(k) for i in range(2)])  # noqa: B023
    torch.testing.assert_close(ours, expected)


# torch.compile and torch.export


@pytest.mark.parametrize("separable", [False, True], ids=["2-D", "separable"])
def test_compiled_forward_and_backward_with_one_graph_for_all_sizes(separable, device):
    kernel = torch.randn(4, device=device) if separable else torch.randn(3, 4, device=device)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def step(x, k):
        y = upfirdn2d(x, k, 2, 1, (2, 1))
        return upfirdn2d(y, k, 1, 2, (1, 1))

    compiled = torch.compile(step, backend=counter, fullgraph=True, dynamic=True)
    # The first sizes all differ: Dynamo takes equal ones for one symbol
    for size in ((2, 5, 9, 8), (3, 2, 8, 9), (5, 4, 10, 7), (4, 6, 13, 13)):
        x = torch.randn(size, device=device)
        a, b = (x.clone().requires_grad_() for _ in range(2))
        k, m = (kernel.clone().requires_grad_() for _ in range(2))
        ours, expected = compiled(a, k), step(b, m)
        torch.testing.assert_close(ours, expected)
        ours.pow(2).sum().backward()
        expected.pow(2).sum().backward()
        torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(k.grad, m.grad, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == 1
    targets = {str(node.target) for graph in counter.graphs for node in graph.graph.nodes}
    assert "resample_layers.upfirdn2d.default" in targets  # door 3: opaque, not taken apart


def test_compiled_layers(device):
    model = torch.nn.Sequential(UpFirDnUpsample(), torch.nn.ReLU(), UpFirDnDownsample()).to(device)
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(1, 2, 8, 7, device=device)
    torch.testing.assert_close(compiled(x), model(x))


def test_compiled_transforms_equal_eager(args):
    """A registered op would lose the tangent silently: door 2 stands before door 3."""
    x, k = args
    dx = torch.randn_like(x)
    compiled = torch.compile(
        lambda x, dx: jvp(lambda x: call(x, k), (x,), (dx,)), backend="aot_eager", fullgraph=True
    )
    for ours, expected in zip(compiled(x, dx), (call(x, k), call(dx, k)), strict=True):
        torch.testing.assert_close(ours, expected)
    compiled = torch.compile(grad(loss), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, k), grad(loss)(x, k))


def test_export_with_dynamic_shapes(device):
    model = torch.nn.Sequential(UpFirDnDownsample(), UpFirDnUpsample((1, 2, 1))).to(device)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        model,
        (torch.randn(2, 3, 16, 18, device=device),),
        dynamic_shapes=({0: auto, 2: auto, 3: auto},),
    )
    for size in ((2, 3, 16, 18), (3, 3, 21, 30)):
        x = torch.randn(size, device=device)
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize(  # the raw operator has no autograd of its own
    ("op", "learn"), [(reg.OP, False), (reg.OP, True), (reg.RAW, False)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_opcheck(op, learn, layout, device):
    x = torch.randn(2, 3, 5, 6, device=device).contiguous(memory_format=layout)
    x.requires_grad_(learn)
    taps = torch.randn(4, device=device, requires_grad=learn)
    k = torch.randn(3, 2, device=device, requires_grad=learn)
    torch.library.opcheck(op, (x, k, None, (2, 1), (1, 3), (1, 2, 0, 2), False))
    torch.library.opcheck(op, (x, taps, None, (2, 1), (1, 3), (1, 2, 0, 2), True))
    torch.library.opcheck(op, (x, taps, taps[:2], (2, 1), (1, 3), (1, 2, 0, 2), True))


def test_opcheck_of_the_kernel_gradient(device):
    x = torch.randn(2, 3, 5, 6, device=device)
    g = torch.randn(2, 3, 4, 3, device=device)
    rest = ((1, 1), (1, 2), (1, 0, 1, 2), (5, 2))
    torch.library.opcheck(reg.RAW_KERNEL_GRAD, (x, g, *rest))
    torch.library.opcheck(reg.KERNEL_GRAD, (x.requires_grad_(), g.requires_grad_(), *rest))


def test_fake_and_meta_tensors(device):
    x = torch.empty(2, 3, 7, 6, device="meta")
    out = upfirdn2d(x, torch.empty(4, device="meta"), 2, 1, (2, 1))
    assert out.device.type == "meta"
    assert out.shape == (2, 3, 14, 12)
    with torch._subclasses.FakeTensorMode():
        y = torch.empty(2, 3, 7, 6, device=device)
        y = y.contiguous(memory_format=torch.channels_last).requires_grad_()
        out = upfirdn2d(y, torch.empty(4, device=device), 2, 1, (2, 1))
        assert out.shape == (2, 3, 14, 12)
        assert out.is_contiguous(memory_format=torch.channels_last)


# Tracers


def test_onnx_export_makes_standard_operators_of_it(monkeypatch, device):
    """Door 1: while the exporter runs, the graph holds no operator of ours."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    program = torch.export.export(
        UpFirDnUpsample().to(device), (torch.randn(1, 2, 5, 6, device=device),)
    )
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets
    assert not [target for target in targets if "resample_layers" in target]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_tracers_pass_through_padding_modes(mode, device):
    model = UpFirDnUpsample(padding_mode=mode).to(device)
    x = torch.randn(1, 2, 8, 9, device=device)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))
    traced = torch.jit.trace(model, torch.randn(1, 2, 5, 4, device=device))
    torch.testing.assert_close(traced(x), model(x))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x), model(x))


def test_jit_trace_generalises_over_sizes(device):
    model = torch.nn.Sequential(UpFirDnUpsample(), UpFirDnDownsample((1, 2, 1), (3, 2))).to(device)
    traced = torch.jit.trace(model, torch.randn(1, 2, 8, 9, device=device))
    for size in ((1, 2, 8, 9), (3, 2, 11, 6)):
        x = torch.randn(size, device=device)
        torch.testing.assert_close(traced(x), model(x))
    operators = {node.kind() for node in traced.inlined_graph.nodes()}
    assert not any("resample_layers" in kind for kind in operators)


def test_fx_symbolic_trace(device):
    model = torch.nn.Sequential(UpFirDnUpsample(), torch.nn.ReLU()).to(device)
    traced = torch.fx.symbolic_trace(model)
    x = torch.randn(1, 2, 8, 9, device=device)
    torch.testing.assert_close(traced(x), model(x))
    assert any(node.target is upfirdn2d for node in traced.graph.nodes)


def test_the_module_and_the_function_share_a_name():
    from resample_layers.ops import upfirdn2d as first
    from resample_layers.ops.upfirdn2d import upfirdn2d as second

    assert first is second
    assert callable(first)


def test_subclasses_are_asked_first(device):
    class Logged(torch.Tensor):
        calls: list = []  # noqa: RUF012

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.calls.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.randn(1, 1, 4, 4, device=device)
    taps = torch.ones(2, device=device)
    upfirdn2d(x, (taps, taps.as_subclass(Logged)))
    assert upfirdn2d in Logged.calls
    Logged.calls.clear()
    out = upfirdn2d(x.as_subclass(Logged), taps)
    assert upfirdn2d in Logged.calls
    assert isinstance(out, Logged)
    torch.testing.assert_close(out.as_subclass(torch.Tensor), upfirdn2d(x, torch.ones(2).to(x)))


def test_activation_checkpointing(device):
    x = torch.randn(1, 2, 8, 8, device=device, requires_grad=True)
    layer = UpFirDnUpsample().to(device)
    out = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    (ours,) = torch.autograd.grad(out.pow(2).sum(), x)
    (expected,) = torch.autograd.grad(layer(x).pow(2).sum(), x)
    assert torch.equal(ours, expected)


def test_native_makes_no_convolution(args):
    """Then no cuDNN algorithm, TF32 flag or autocast rule has a say."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        native.resample(*args, None, UP, DOWN, PAD)
        native.kernel_grad(args[0], call(*args), UP, DOWN, PAD, (4, 3))
    assert seen
    assert not [name for name in seen if any(word in name for word in ("conv", "mm", "dot"))]
