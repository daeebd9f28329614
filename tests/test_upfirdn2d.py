# SPDX-License-Identifier: BSD-3-Clause
"""The op's values: against the definition, against scipy, on every path and layout."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from resample_layers import geometry
from resample_layers.ops import (
    UpFirDn2d,
    UpFirDn2dBackward,
    native,
    upfirdn2d,
    upfirdn2d_bias_act,
    upfirdn2d_native,
)
from resample_layers.ops.op import OPS as EAGER
from resample_layers.ops.op import _is_out_of_memory

from . import oracle
from .calls import as_operands
from .cases import CASES

OPS = torch.ops.resample_layers

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def by_function(x, kernel, up, down, pad):
    return upfirdn2d(x, kernel, up, down, pad)


def by_native(x, kernel, up, down, pad):
    return upfirdn2d_native(x, kernel, *up, *down, *pad)


def by_native_recorded(x, kernel, up, down, pad):
    """The functional walk, which is what transforms and tracers see."""
    return upfirdn2d_native(x.detach().requires_grad_(), kernel, *up, *down, *pad)


def by_autograd(x, kernel, up, down, pad):
    taps, taps_y = kernel if isinstance(kernel, tuple) else (kernel, None)
    return UpFirDn2d.apply(x.detach().requires_grad_(), taps, up, down, pad, taps_y)


def by_registered(x, kernel, up, down, pad):
    taps, taps_y = as_operands(kernel)
    return OPS.upfirdn2d.default(x, taps, taps_y, up, down, pad, False)


def by_flipped(x, kernel, up, down, pad):
    if isinstance(kernel, tuple):
        return OPS._upfirdn2d.default(x, kernel[0].flip(0), kernel[1].flip(0), up, down, pad, True)
    return OPS._upfirdn2d.default(x, kernel.flip(0, 1), None, up, down, pad, True)


PATHS = (by_function, by_native, by_native_recorded, by_autograd, by_registered, by_flipped)


def draw(case, dtype, device, layout="contiguous"):
    x = torch.randn(case.shape, device=device).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    kh, kw = case.kernel
    taps_x, taps_y = torch.randn(kw, device=device), torch.randn(kh, device=device)
    return x, taps_x, taps_y


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_definition(case, path, device):
    x, _, _ = draw(case, torch.float64, device)
    kernel = torch.randn(case.kernel, dtype=torch.float64, device=device)
    out = path(x, kernel, case.up, case.down, case.pad)
    oracle.assert_matches(out, x, kernel, case.up, case.down, case.pad)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_separable_kernels_equal_their_outer_product(case, path, device):
    x, taps_x, taps_y = draw(case, torch.float64, device)
    taps_x, taps_y = taps_x.double(), taps_y.double()
    out = path(x, (taps_x, taps_y), case.up, case.down, case.pad)
    oracle.assert_matches(out, x, torch.outer(taps_y, taps_x), case.up, case.down, case.pad)


def test_taps_alone_serve_both_axes(device):
    x, taps = torch.randn(1, 2, 6, 5, device=device), torch.randn(3, device=device)
    oracle.assert_matches(
        upfirdn2d(x, taps, (2, 1), 1, (2, 1, 1, 1)), x, torch.outer(taps, taps),
        (2, 1), (1, 1), (2, 1, 1, 1),
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_dtype_and_layout(case, dtype, layout, device):
    x, taps_x, taps_y = draw(case, dtype, device, layout)
    for kernel in ((taps_x, taps_y), torch.outer(taps_y.double(), taps_x.double())):
        out = upfirdn2d(x, kernel, case.up, case.down, case.pad)
        assert out.dtype == dtype
        oracle.assert_matches(
            out, x, torch.outer(taps_y.double(), taps_x.double()), case.up, case.down, case.pad
        )
        if layout == "channels_last" and not x.is_contiguous():
            assert out.is_contiguous(memory_format=torch.channels_last)
        else:
            assert out.is_contiguous()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_configuration(data, device):
    integer = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    shape = (integer(0, 3), integer(0, 5), integer(1, 12), integer(1, 12))
    up, down = (integer(1, 6), integer(1, 6)), (integer(1, 6), integer(1, 6))
    kh, kw = integer(1, 33), integer(1, 33)
    pad = tuple(integer(-9, 36) for _ in range(4))
    assume(shape[2] * up[1] + pad[2] + pad[3] >= kh and shape[3] * up[0] + pad[0] + pad[1] >= kw)
    dtype = data.draw(st.sampled_from(DTYPES))
    layout = data.draw(st.sampled_from(["contiguous", "channels_last", "transposed", "sliced"]))
    torch.manual_seed(integer(0, 2**31))
    x = torch.randn(shape, dtype=torch.float64, device=device).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = x.mT.contiguous().mT
    elif layout == "sliced":
        x = torch.stack([x, -x], 4)[..., 0]
    taps_x, taps_y = torch.randn(kw, device=device), torch.randn(kh, device=device)
    kernel = torch.outer(taps_y.double(), taps_x.double())
    separable = data.draw(st.booleans())
    out = upfirdn2d(x, (taps_x, taps_y) if separable else kernel, up, down, pad)
    oracle.assert_matches(out, x, kernel, up, down, pad)


@settings(max_examples=100, deadline=None)
@given(
    up=st.integers(1, 6), down=st.integers(1, 6), taps=st.integers(1, 33), size=st.integers(1, 40)
)
@example(up=5, down=3, taps=1, size=1)
def test_equals_scipy(up, down, taps, size):
    """Pads (taps - 1, taps - up) give exactly scipy's values and length."""
    assume((size - 1) * up + taps >= 1 and size * up + 2 * taps - 1 - up >= taps)
    rng = np.random.default_rng(up + 7 * down + 49 * taps + 1700 * size)
    h, x = rng.standard_normal(taps), rng.standard_normal(size)
    expected = scipy.signal.upfirdn(h, x, up, down)
    ours = upfirdn2d(
        torch.from_numpy(x)[None, None, None],
        (torch.from_numpy(h), torch.ones(1, dtype=torch.float64)),
        (up, 1),
        (down, 1),
        (taps - 1, taps - up, 0, 0),
    )
    np.testing.assert_allclose(ours[0, 0, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_two_pads_are_before_and_after():
    x, k = torch.randn(1, 1, 5, 6), torch.randn(4, 4)
    assert upfirdn2d(x, k, up=2, pad=(2, 1)).shape == (1, 1, 10, 12)
    torch.testing.assert_close(upfirdn2d(x, k, 2, 1, (2, 1)), upfirdn2d(x, k, 2, 1, (2, 1, 2, 1)))


# Precision


def test_half_types_are_summed_in_float32(device):
    """256 ones and 256 samples of 1: a half sum would stop at 256 in bfloat16."""
    x = torch.ones(1, 1, 32, 32, dtype=torch.bfloat16, device=device)
    out = upfirdn2d(x, torch.full((32, 32), 1.0, device=device))
    assert out.item() == 1024.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_kernel_is_not_rounded_to_the_input(dtype, device):
    x = torch.ones(1, 1, 1, 2, dtype=dtype, device=device)
    k = torch.tensor([[1.0 + 2.0**-12, -1.0]], device=device)
    assert upfirdn2d(x, k).item() == 2.0**-12


def test_float64_throughout(device):
    x = torch.tensor([[[[1.0, 1e-12]]]], dtype=torch.float64, device=device)
    out = upfirdn2d(x, torch.tensor([[1.0, 1.0]], dtype=torch.float64, device=device))
    assert out.item() == 1.0 + 1e-12


def test_a_float64_kernel_is_not_rounded_to_a_float32_input(device):
    """1 - (1 + 2**-30): nothing is left of it in float32."""
    x = torch.tensor([[[[1.0, 1.0]]]], device=device)
    k = torch.tensor([[1.0, -(1.0 + 2.0**-30)]], dtype=torch.float64, device=device)
    out = upfirdn2d(x, k)
    assert out.dtype == torch.float32
    assert out.item() == -(2.0**-30)


def test_nonfinite_taps_propagate(device):
    x = torch.randn(1, 1, 8, 8, device=device)
    for value in (float("nan"), float("inf")):
        taps = torch.tensor([1.0, value, 1.0], device=device)
        assert not upfirdn2d(x, taps, pad=(1, 1)).isfinite().any()


def test_zeros_in_the_kernel_are_read_like_other_taps(device):
    """0 * inf is NaN; values are never looked at."""
    x = torch.full((1, 1, 3, 3), float("inf"), device=device)
    assert upfirdn2d(x, torch.zeros(3, 3, device=device)).isnan().all()


# Layout


def test_inputs_of_any_strides(device):
    x = torch.randn(3, 4, 7, 6, device=device)
    k = torch.randn(3, 2, device=device)
    strided = {
        "transposed": x.mT.contiguous().mT,
        "sliced": torch.stack([x, x + 1], -1)[..., 0],
        "permuted": x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        "cropped": torch.nn.functional.pad(x, (1, 2, 3, 4))[:, :, 3:-4, 1:-2],
        "half the channels": torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)[
            :, :4
        ],
        "expanded": x[:1, :1].expand(3, 4, 7, 6),
    }
    for name, view in strided.items():
        expected = upfirdn2d(view.contiguous(), k, (2, 1), (1, 3), (1, 2, 0, 1))
        torch.testing.assert_close(
            upfirdn2d(view, k, (2, 1), (1, 3), (1, 2, 0, 1)), expected, msg=name
        )


def test_gradients_keep_channels_last(device):
    x = torch.randn(2, 4, 6, 5, device=device).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    out = upfirdn2d(x, torch.randn(4, device=device), 2, 1, (2, 1))
    (grad,) = torch.autograd.grad(out, x, torch.randn_like(out))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    assert not grad.is_contiguous()


def test_one_image_in_nhwc_keeps_its_format(device):
    """The stride of a dimension of one sample says nothing; torch agrees."""
    x = torch.randn(9, 8, 3, device=device).permute(2, 0, 1)[None]
    out = upfirdn2d(x, torch.ones(2, device=device))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()
    wide = torch.randn(2, 5, 9, 1, device=device).contiguous(memory_format=torch.channels_last)
    assert upfirdn2d(wide, torch.ones(1, device=device)).stride() == wide.stride()


def test_input_is_left_alone(device):
    x, k = torch.randn(1, 2, 5, 5, device=device), torch.randn(3, 3, device=device)
    before = x.clone(), k.clone()
    upfirdn2d(x, k, 1, 1, (0, 0))
    upfirdn2d(x, torch.ones(1, 1, device=device)).add_(1)  # the identity must not alias
    assert torch.equal(x, before[0])
    assert torch.equal(k, before[1])


def test_pieces_make_the_whole(device, monkeypatch):
    """Cut into rows, channels and samples, the result is that of one piece."""
    x = torch.randn(3, 5, 23, 17, device=device)
    taps = torch.randn(5, device=device)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = x.contiguous(memory_format=layout)
        for up, down, pad in (((2, 3), (1, 2), (3, 1, 2, 2)), ((1, 1), (2, 2), (-2, 5, 4, -3))):
            whole = native.resample(y, taps, taps, up, down, pad)
            grad = torch.randn_like(whole)
            whole_w = native.kernel_grad(y, grad, up, down, pad, (5, 4))
            for budget in (1, 3000, 20000):
                monkeypatch.setattr(native, "PIECE_BYTES", {device.type: budget})
                pieces = list(native._pieces(y, whole, torch.float32))
                assert len(pieces) > 1
                if budget == 1:
                    assert all(last - first == 1 for *_, first, last in pieces)
                torch.testing.assert_close(native.resample(y, taps, taps, up, down, pad), whole)
                w = native.kernel_grad(y, grad, up, down, pad, (5, 4))
                torch.testing.assert_close(w, whole_w, rtol=1e-5, atol=1e-4)
            monkeypatch.undo()


# Modes


def test_autocast_changes_nothing(device):
    x, taps = torch.randn(1, 2, 9, 8, device=device), torch.randn(4, device=device)
    settings = (2, 2), (1, 1), (2, 1, 2, 1)
    for path in (by_function, by_native, by_native_recorded, by_autograd, by_registered):
        expected = path(x, taps, *settings)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast(device.type, dtype):
                assert torch.equal(path(x, taps, *settings), expected)
                assert path(x.half(), taps, *settings).dtype == torch.float16


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_tf32_changes_nothing(precision, device):
    x, taps = torch.randn(1, 2, 33, 31, device=device), torch.randn(8, device=device)
    before = torch.get_float32_matmul_precision()
    expected = upfirdn2d(x, taps)
    try:
        torch.set_float32_matmul_precision(precision)
        assert torch.equal(upfirdn2d(x, taps), expected)
        oracle.assert_matches(
            upfirdn2d(x, taps), x, torch.outer(taps, taps), (1, 1), (1, 1), (0, 0, 0, 0)
        )
    finally:
        torch.set_float32_matmul_precision(before)


def test_inference_mode_and_deterministic_algorithms(device):
    x, taps = torch.randn(1, 2, 9, 8, device=device), torch.randn(4, device=device)
    expected = upfirdn2d(x, taps, 2)
    with torch.inference_mode():
        assert torch.equal(upfirdn2d(x, taps, 2), expected)
    torch.use_deterministic_algorithms(True)
    try:
        y = x.clone().requires_grad_()
        upfirdn2d(y, taps.clone().requires_grad_(), 2).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_results_are_the_same_from_run_to_run(device):
    x = torch.randn(4, 8, 65, 63, device=device)
    k = torch.randn(5, 4, device=device)
    grad = torch.randn_like(upfirdn2d(x, k, 2, 3))
    size = (4, 5)
    first = OPS._upfirdn2d_kernel_grad.default(x, grad, (2, 2), (3, 3), (0, 0, 0, 0), size)
    for _ in range(3):
        assert torch.equal(upfirdn2d(x, k, 2, 3), upfirdn2d(x, k, 2, 3))
        again = OPS._upfirdn2d_kernel_grad.default(x, grad, (2, 2), (3, 3), (0, 0, 0, 0), size)
        assert torch.equal(again, first)


# The kernel's gradient


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_gradient_equals_the_definition(case, dtype, device):
    x, _, _ = draw(case, dtype, device)
    out = upfirdn2d(x, torch.ones(case.kernel, device=device), case.up, case.down, case.pad)
    grad = torch.randn(out.shape, device=device).to(dtype)
    w = OPS._upfirdn2d_kernel_grad.default(x, grad, case.up, case.down, case.pad, case.kernel[::-1])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert w.dtype == wide
    assert w.shape == case.kernel
    samples, weights = x.double().cpu().numpy(), grad.double().cpu().numpy()
    expected = oracle.kernel_grad(samples, weights, case.kernel, case.up, case.down, case.pad)
    scale = oracle.kernel_grad(
        abs(samples), abs(weights), case.kernel, case.up, case.down, case.pad
    ).max() or 1.0  # fmt: skip
    assert abs(w.double().cpu().numpy() - expected).max() / scale <= oracle.TOLERANCE[wide]


def test_backward_function_with_the_flipped_kernel_given(device):
    """The convention of vendored copies: kernel and flipped kernel both passed."""
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, device=device, requires_grad=True)
    k = torch.randn(4, 3, dtype=torch.float64, device=device)
    up, down, pad = (2, 1), (1, 2), (2, 1, 1, 2)
    out = upfirdn2d(x, k, up, down, pad)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    g_pad = geometry.adjoint_pads(x.shape[2:], out.shape[2:], up, down, pad, k.shape)
    for flipped in (k.flip(0, 1), None):
        ours = UpFirDn2dBackward.apply(
            grad, k, flipped, up, down, pad, g_pad, x.shape, tuple(out.shape[2:])
        )
        torch.testing.assert_close(ours, expected)


def test_backward_function_with_separable_taps(device):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, device=device, requires_grad=True)
    taps_x, taps_y = (torch.randn(n, dtype=torch.float64, device=device) for n in (3, 2))
    up, down, pad = (2, 1), (1, 2), (2, 1, 1, 2)
    out = upfirdn2d(x, (taps_x, taps_y), up, down, pad)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    g_pad = geometry.adjoint_pads(x.shape[2:], out.shape[2:], up, down, pad, (2, 3))
    rest = up, down, pad, g_pad, x.shape, tuple(out.shape[2:]), taps_y
    ours = UpFirDn2dBackward.apply(grad, taps_x, None, *rest)
    torch.testing.assert_close(ours, expected)
    with pytest.raises(ValueError, match="grad_kernel must be None where taps_y is given"):
        UpFirDn2dBackward.apply(grad, taps_x, taps_x.flip(0), *rest)


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("op", [upfirdn2d, upfirdn2d_bias_act])
def test_out_of_memory_is_said_in_torchs_words(op, learn):
    """Compiled kernels lose them between torch and their library, and it asks again."""
    huge = torch.ones(1, 1, 8, 8).expand(2**25, 2**16, 8, 8)  # 512 TB
    taps = torch.ones(2, requires_grad=learn)
    with pytest.raises(RuntimeError, match=r"memory: you tried to allocate \d+ bytes") as caught:
        op(huge, taps)
    first = str(caught.value).splitlines()[0]  # torch's frames follow
    assert first == (
        f"{op.__name__} ran out of memory on cpu, with tensors of shapes [33554432, 65536, 8, 8], "
        "[2], [2]"
    )


@pytest.mark.parametrize(
    ("words", "is_so"),
    [
        ("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried ...", True),
        ("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("kernel must have 1 or 2 dimensions", False),
    ],
)
def test_out_of_memory_in_the_words_of_each_system(words, is_so):
    """On Windows, on other systems, on GPUs."""
    assert _is_out_of_memory(RuntimeError(words)) is is_so


def test_out_of_memory_shows_no_frames_of_cpp():
    """Torch logs twenty lines of them where it is asked through the kernels' library."""
    code = (
        "import torch; from resample_layers.ops import upfirdn2d; "
        "upfirdn2d(torch.zeros(1, 1, 1000, 1000), torch.ones(1, 1), 30000)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 1
    assert "frame #" not in told.stderr
    last = told.stderr.splitlines()[-2:]
    assert last[0].startswith("RuntimeError: upfirdn2d ran out of memory on cpu, with tensors of")
    assert "you tried to allocate 3600000000000000 bytes" in last[1]


def test_out_of_memory_of_a_backward_pass_is_said_too():
    x = torch.ones(1, 1, 1, 1).expand(1, 1, 2**24, 2**24).requires_grad_()
    out = upfirdn2d(x, torch.ones(1), down=2**23)
    assert out.shape == (1, 1, 2, 2)
    with pytest.raises(RuntimeError, match="you tried to allocate") as caught:
        torch.autograd.grad(out.sum(), x)
    assert str(caught.value).startswith(
        "upfirdn2d ran out of memory on cpu, with tensors of shapes"
    )


def test_out_of_memory_of_the_kernels_gradient_is_said_too():
    x, side = torch.ones(1, 1, 4, 4), 2**24
    with pytest.raises(RuntimeError, match="upfirdn2d_kernel_grad ran out of memory on cpu"):
        EAGER["upfirdn2d_kernel_grad"](x, x, (1, 1), (1, 1), (side - 1, 0) * 2, (side, side))
