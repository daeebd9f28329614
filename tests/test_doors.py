# SPDX-License-Identifier: BSD-3-Clause
"""What stands before the doors of a call, and what is behind the native one."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from resample_layers.ops import bias_act, filtered_lrelu, native, upfirdn2d

from .calls import DOWN, PAD, UP, call, logged_tensor


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


def test_the_module_and_the_function_share_a_name():
    from resample_layers.ops import upfirdn2d as first
    from resample_layers.ops.upfirdn2d import upfirdn2d as second

    assert first is second
    assert callable(first)


def test_subclasses_are_asked_first(device):
    Logged = logged_tensor()
    x = torch.randn(1, 1, 4, 4, device=device)
    taps = torch.ones(2, device=device)
    for pair in ((taps, taps.as_subclass(Logged)), [taps, taps.as_subclass(Logged)]):
        upfirdn2d(x, pair)
        assert Logged.calls[0] is upfirdn2d
        Logged.calls.clear()
    out = upfirdn2d(x.as_subclass(Logged), taps)
    assert upfirdn2d in Logged.calls
    assert isinstance(out, Logged)
    torch.testing.assert_close(out.as_subclass(torch.Tensor), upfirdn2d(x, torch.ones(2).to(x)))


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


def test_the_raw_operator_records_no_gradient(args):
    """Autograd passes it by: Functions call it in their forward, or no gradient is asked for."""
    raw = torch.ops.resample_layers._upfirdn2d.default
    out = raw(args[0].requires_grad_(), args[1], None, UP, DOWN, PAD, False)
    assert not out.requires_grad
    torch.testing.assert_close(out, call(*args).detach())


def test_a_graph_of_a_gradient_can_be_differentiated(device):
    """It holds operators that compute a first-order gradient, and have no rule for autograd."""
    x, bias = torch.randn(2, 3, 4, 5, device=device), torch.randn(3, device=device)
    v = torch.randn_like(x)
    for op in (bias_act, lambda x, bias: filtered_lrelu(x, bias=bias)):

        def slopes(x, bias, v):
            x, bias = (t.detach().requires_grad_() for t in (x, bias))
            out = op(x, bias)  # noqa: B023
            return torch.autograd.grad(out, (x, bias), v, create_graph=v.requires_grad)

        graph = make_fx(slopes)(x, bias, v)
        assert "_grad.default(" in graph.code
        leaf = v.clone().requires_grad_()
        first, expected = graph(x, bias, leaf), slopes(x, bias, leaf)
        for ours, theirs in zip(first, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        of_v = [torch.autograd.grad(sum(g.pow(3).sum() for g in each), leaf)
                for each in (first, expected)]  # fmt: skip
        torch.testing.assert_close(*of_v)


def test_a_traced_graph_can_be_differentiated(args):
    """It holds the registered operator, where the call that was traced used the raw one."""
    x, k = args

    def product(x, factor):
        return (upfirdn2d(x * factor, k, UP, DOWN, PAD) ** 2).sum() * factor

    factor = torch.tensor(2.0, dtype=x.dtype, device=x.device, requires_grad=True)
    (expected,) = torch.autograd.grad(product(x, factor), factor)
    with torch.no_grad():
        graph = make_fx(product)(x, factor)
    assert torch.ops.resample_layers.upfirdn2d.default in {
        node.target for node in graph.graph.nodes
    }
    (found,) = torch.autograd.grad(graph(x, factor), factor)
    torch.testing.assert_close(found, expected)
