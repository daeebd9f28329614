# SPDX-License-Identifier: BSD-3-Clause
"""What only a GPU can show of the compiled CUDA kernels: streams, graphs, memory, sizes.

Their values are tested with all others, by the ``device`` fixture.
"""

import contextlib
import math
import warnings

import pytest
import torch

from resample_layers import geometry, ops
from resample_layers.filters import kaiser_lowpass
from resample_layers.ops import extension, native, upfirdn2d, upfirdn2d_bias_act

from .calls import as_operands
from .conftest import REQUIRE_CUDA

OPS = torch.ops.resample_layers

BUSY = 500_000_000  # cycles of torch.cuda._sleep: a fourth of a second, far above any call here
TAPS = (1.0, 3.0, 3.0, 1.0)
RATES = {"smooth": (1, 1, (2, 1)), "up": (2, 1, (2, 1)), "down": (1, 2, (1, 1))}  # up, down, pad
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def cuda() -> torch.device:
    """The current GPU, served by the compiled kernels; without a GPU the test is not run."""
    if not torch.cuda.is_available():
        if REQUIRE_CUDA:
            pytest.fail("RESAMPLE_LAYERS_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    device = torch.device("cuda", torch.cuda.current_device())
    upfirdn2d(torch.ones(1, 1, 1, 1, device=device), torch.ones(1, device=device))
    assert extension.choices["cuda"].backend == "extension", extension.choices["cuda"].reason
    return device


def forward(x, taps):
    return upfirdn2d(x, taps, 2, 1, (2, 1))


def forward_of_a_kernel_that_is_not_separable(x, taps):
    return upfirdn2d(x, torch.outer(taps, taps.flip(0)), 1, 2, (1, 1))


def generic(x, taps):
    """Factors that no specialised variant serves."""
    return upfirdn2d(x, taps, (3, 1), (2, 3), (3, 2))


def gradient_of_the_input(x, taps):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(upfirdn2d(x, taps, 1, 2, (1, 1)).square().sum(), x)[0]


def gradient_of_the_kernel(x, taps):
    taps = taps.detach().requires_grad_()
    return torch.autograd.grad(upfirdn2d(x, taps, 2, 1, (2, 1)).square().sum(), taps)[0]


def fused(x, taps):
    noise, bias = x[:, :1, :, :], x[0, :, 0, 0]
    strength = x[0, 0, 0, :1]
    return ops.upfirdn2d_bias_act(x, taps, bias, noise, strength, 1, 1, (2, 1), clamp=2.0)


def fused_with_half_operands(x, taps):
    noise, bias, strength = (t.half() for t in (x[:, :1], x[0, :, 0, 0], x[0, 0, 0, :1]))
    return ops.upfirdn2d_bias_act(x, taps, bias, noise, strength, 1, 1, (2, 1))


def activation(x, taps):
    """A call of one tap."""
    return ops.bias_act(x, x[0, :, 0, 0], x[:, :1], x[0, 0, 0, :1], clamp=2.0)


def gradient_of_activation(x, taps):
    x, strength = x.detach().requires_grad_(), taps[:1].detach().requires_grad_()
    out = ops.bias_act(x, None, x[:, :1].detach(), strength)
    return torch.cat([g.flatten() for g in torch.autograd.grad(out.square().sum(), (x, strength))])


def gradient_of_fused(x, taps):
    x, bias = x.detach().requires_grad_(), x[0, :, 0, 0].detach().requires_grad_()
    out = ops.upfirdn2d_bias_act(x, taps, bias, pad=(2, 1))
    return torch.cat([g.flatten() for g in torch.autograd.grad(out.square().sum(), (x, bias))])


CALLS = (
    forward,
    forward_of_a_kernel_that_is_not_separable,
    generic,
    gradient_of_the_input,
    gradient_of_the_kernel,
    fused,
    fused_with_half_operands,
    activation,
    gradient_of_fused,
    gradient_of_activation,
)
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)


def draw(cuda, *shape):
    return torch.randn(*shape, device=cuda), torch.tensor(TAPS, device=cuda) / 8


# Streams


@every_call
def test_waits_for_its_own_stream(call, cuda):
    """On any other stream it would read the zeros from before the copy."""
    values, taps = draw(cuda, 2, 8, 65, 63)
    expected = call(values, taps)
    x, stream = torch.zeros_like(values), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(BUSY)
        x.copy_(values)
        out = call(x, taps)
    stream.synchronize()
    assert torch.equal(out, expected)


@every_call
def test_waits_for_no_other_stream(call, cuda):
    """Done while the default stream is still at work."""
    x, taps = draw(cuda, 2, 8, 65, 63)
    expected, stream, busy = call(x, taps), torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        call(x, taps)  # loads the code, and leaves memory for the next call
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY)
    busy.record()
    with torch.cuda.stream(stream):
        out = call(x, taps)
    stream.synchronize()
    assert not busy.query(), "the default stream came to its end first"
    assert torch.equal(out, expected)


# CUDA graphs


@every_call
def test_graphs_replay_with_new_inputs(call, cuda):
    (x, taps), (y, other) = draw(cuda, 2, 8, 33, 31), draw(cuda, 2, 8, 33, 31)
    other = other.flip(0) * torch.arange(1, 5, device=cuda)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(x, taps)
    torch.cuda.current_stream().wait_stream(stream)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(x, taps)
    for inputs, kernel in ((x.clone(), taps.clone()), (y, other)):
        x.copy_(inputs)
        taps.copy_(kernel)
        out.fill_(math.nan)
        graph.replay()
        assert torch.equal(out, call(inputs, kernel))


# Devices


@every_call
@pytest.mark.parametrize("current", [0, 1])
def test_runs_on_its_inputs_device(current, call):
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two CUDA devices")
    other = torch.device("cuda", 1 - current)
    x, taps = draw(other, 2, 8, 33, 31)
    with torch.cuda.device(other):
        expected = call(x, taps)
        torch.cuda.synchronize()
    with torch.cuda.device(current):
        out = call(x, taps)
        assert torch.cuda.current_device() == current
        # A kernel left on the current device would have found no such memory
        assert torch.empty(1, device="cuda").device.index == current
    assert out.device == other
    assert torch.equal(out, expected)


# No synchronisation, no memory but the output


@contextlib.contextmanager
def synchronising_is_an_error():
    """Any wait of torch for the GPU raises.

    torch 2.11 warns when the mode is switched on, and a warning is an error in these tests: the
    switch ignores it, and the mode is restored whatever happens.
    """
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@every_call
def test_never_synchronises(call, cuda):
    x, taps = draw(cuda, 2, 8, 33, 31)
    call(x, taps)  # loads the code, which may wait
    with synchronising_is_an_error():
        call(x, taps)


@every_call
def test_returns_while_its_stream_is_busy(call, cuda):
    """The debug mode above sees torch's own waits alone; this sees those of our library too."""
    x, taps = draw(cuda, 2, 8, 33, 31)
    call(x, taps)
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    torch.cuda._sleep(BUSY)
    busy.record()
    out = call(x, taps)
    assert not busy.query(), "the call came back after the work before it"
    torch.cuda.synchronize()
    assert torch.equal(out, call(x, taps))


def peak_bytes(call):
    """What a call asked the allocator for at its peak, and its result."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    result = call()
    return torch.cuda.memory_stats()["requested_bytes.all.peak"] - before, result


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_allocates_its_output_alone(rates, dtype, layout, cuda):
    x, taps = draw(cuda, 2, 16, 66, 64)
    x = x.to(dtype).contiguous(memory_format=layout)
    (up, down, pad), view = rates, x[:, :, 1:-1, :]
    for input in (x, view):
        for kernel in (taps, torch.outer(taps, taps)):
            peak, out = peak_bytes(lambda i=input, k=kernel: upfirdn2d(i, k, up, down, pad))
            assert peak == out.nbytes
            y = input.detach().requires_grad_()
            result = upfirdn2d(y, kernel, up, down, pad)
            gradient = torch.randn_like(result)
            peak, (grad,) = peak_bytes(
                lambda y=y, r=result, g=gradient: torch.autograd.grad(r, y, g)
            )
            assert peak <= grad.nbytes + 1024  # and a copy of the taps, if any
    noise = taps.new_ones(2, 1, *upfirdn2d(x, taps, up, down, pad).shape[2:])
    bias, strength = taps.new_ones(16), taps.new_ones(1)
    peak, out = peak_bytes(
        lambda: ops.upfirdn2d_bias_act(x, taps, bias, noise, strength, up, down, pad)
    )
    assert peak == out.nbytes


def test_the_kernels_gradient_needs_little_memory(cuda):
    """Partial sums of 1024 blocks, whatever the size of the images."""
    x = torch.randn(4, 64, 128, 128, device=cuda)
    peak, w = peak_bytes(
        lambda: OPS._upfirdn2d_kernel_grad.default(x, x, (1, 1), (1, 1), (2, 1, 2, 1), (4, 4))
    )
    assert w.shape == (4, 4)
    assert peak <= 1024 * 16 * 4 + w.nbytes


def test_the_kernels_gradient_of_many_taps(cuda):
    """More groups of taps than a grid's second axis takes, and a small workspace all the same."""
    x, g = torch.randn(1, 1, 725, 730, device=cuda), torch.randn(1, 1, 1, 6, device=cuda)
    call = (x, g, (1, 1), (1, 1), (0, 0, 0, 0), (725, 725))
    peak, w = peak_bytes(lambda: OPS._upfirdn2d_kernel_grad.default(*call))
    expected = torch.nn.functional.conv2d(x.double(), g.double()).flip(2, 3)[0, 0]
    torch.testing.assert_close(w.double(), expected, rtol=1e-5, atol=1e-5)
    assert peak <= (8 << 20) + w.nbytes


@pytest.mark.parametrize("up", [4096, 8192])
def test_the_kernels_gradient_of_far_positions(up, cuda):
    """Upsampled positions beyond 2**31 and 2**32, of which a crop leaves few."""
    size, taps, outputs = 2**20, 3, 9
    first = (size - 1) * up - 5
    x, g = torch.randn(1, 1, 1, size, device=cuda), torch.randn(1, 1, 1, outputs, device=cuda)
    pad = (-first, outputs + taps - 1 - size * up + first, 0, 0)
    w = OPS._upfirdn2d_kernel_grad.default(x, g, (up, 1), (1, 1), pad, (taps, 1))
    last_sample = first + 5  # the one position of a sample that any output reads
    expected = [
        sum(
            float(g[0, 0, 0, t] * x[0, 0, 0, -1])
            for t in range(outputs)
            if t + (taps - 1 - j) + first == last_sample
        )
        for j in range(taps)
    ]
    torch.testing.assert_close(w, torch.tensor([expected], device=cuda))


def test_out_of_memory_leaves_nothing_broken(cuda):
    x, taps = draw(cuda, 1, 1, 8, 8)
    expected = upfirdn2d(x, taps)
    huge = x.expand(2**20, 2**14, 8, 8)  # 1 MB of addresses, terabytes of output
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            upfirdn2d(huge, taps)
        with pytest.raises(torch.OutOfMemoryError):
            upfirdn2d(huge, taps.clone().requires_grad_())
        with pytest.raises(torch.OutOfMemoryError):
            upfirdn2d_bias_act(huge, taps)
    assert torch.cuda.memory_allocated() == before
    torch.cuda.synchronize()  # no error is left behind
    assert torch.equal(upfirdn2d(x, taps), expected)


# Values where a GPU's kernels have edges


def assert_close(out, expected):
    """Equal to a float64 result but for the rounding of the output's dtype and of float32 sums."""
    scale = expected.abs().max().item()
    error = (out.double() - expected).abs().max().item()
    assert error <= TOLERANCE[out.dtype] * scale, (error, scale)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [4, 12, 24, 5, 31])
@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_layers_of_many_tiles(rates, size, dtype, layout, cuda):
    """Sizes about powers of two, forward and backward: the shapes that networks have."""
    up, down, _ = rates
    taps = torch.randn(size, device=cuda)
    for height, width in ((65, 129), (128, 64), (257, 255)):
        x = torch.randn(2, 24, height, width, device=cuda).to(dtype)
        x = x.contiguous(memory_format=layout).requires_grad_()
        pad = (size // 2, size - 1 - size // 2) * 2
        out = upfirdn2d(x, taps, up, down, pad)
        g = torch.randn_like(out)
        wide = x.detach().double().requires_grad_()
        expected = native.resample(wide, taps.double(), taps.double(), (up, up), (down, down), pad)
        assert_close(out, expected)
        assert_close(
            torch.autograd.grad(out, x, g)[0], torch.autograd.grad(expected, wide, g.double())[0]
        )


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("size", [4, 12, 24, 7])
@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_taps_that_are_not_finite(rates, size, bad, dtype, layout, cuda):
    """Padding and inserted zeros are not multiplied: such a tap shows where it meets a sample."""
    up, down, _ = rates
    x = torch.rand(2, 8, 17, 16, device=cuda).to(dtype).contiguous(memory_format=layout)
    taps = torch.rand(size, device=cuda) + 0.5
    taps[1] = bad
    outer = torch.outer(taps, taps)
    call = ((up, up), (down, down), (size, size) * 2)
    samples = torch.ones_like(x, dtype=torch.float64)
    meets = native.resample(samples, (~outer.isfinite()).double(), None, *call) > 0
    rest = native.resample(x.double(), outer.nan_to_num(0, 0).double(), None, *call)
    expected = torch.where(meets, bad, rest)
    assert meets.any()
    assert not meets.all()
    for kernel in (taps, outer):
        out = upfirdn2d(x, kernel, up, down, (size, size))
        torch.testing.assert_close(
            out.double(), expected, rtol=4 * TOLERANCE[dtype], atol=0, equal_nan=True
        )


def test_a_clamp_is_at_most_the_largest_number(cuda):
    x = torch.full((1, 1, 4, 4), math.inf, device=cuda)
    out = ops.upfirdn2d_bias_act(x, torch.ones(1, device=cuda), clamp=1e300)
    assert torch.equal(out, torch.full_like(out, torch.finfo(torch.float32).max))


def offset(x):
    """The same values one element further in memory: no wide access is aligned."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


VIEWS = {
    "offset": offset,
    "transposed": lambda x: x.mT.contiguous().mT,
    "sliced": lambda x: torch.stack([x, x + 1], -1)[..., 0],
    "cropped": lambda x: torch.nn.functional.pad(x, (1, 2, 3, 4))[:, :, 3:-4, 1:-2],
    "half the channels": lambda x: torch.cat([x, x], 1).contiguous(
        memory_format=torch.channels_last
    )[:, : x.shape[1]],
    "odd channels": lambda x: torch.cat([x[:, :1], x], 1).contiguous(
        memory_format=torch.channels_last
    )[:, 1:],
    "every other sample": lambda x: torch.stack([x, -x], 1)[:, 0],
    "expanded": lambda x: x[:1, :1].expand(x.shape),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_inputs_of_any_strides(rates, dtype, view, cuda):
    up, down, pad = rates
    x, taps = draw(cuda, 3, 8, 66, 96)
    strided = view(x.to(dtype))
    for kernel in (taps, torch.outer(taps, taps), torch.randn(12, device=cuda)):
        out = upfirdn2d(strided, kernel, up, down, pad)
        wide = (strided.double(), *as_operands(kernel.double()), (up, up), (down, down), pad * 2)
        assert_close(out, native.resample(*wide))


@every_call
def test_repeats_are_equal_bit_for_bit(call, cuda):
    """While another stream changes which block runs when."""
    x, taps = draw(cuda, 8, 32, 129, 127)
    first, other = call(x, taps), torch.cuda.Stream()
    y = torch.randn(1 << 24, device=cuda)
    other.wait_stream(torch.cuda.current_stream())
    for _ in range(5):
        with torch.cuda.stream(other):
            y.mul_(1.0001)
        assert torch.equal(call(x, taps), first)


# More than 2**31 elements


def half_images(need, cuda, *shape):
    """Random float16, where the GPU has ``need`` such tensors' memory free."""
    torch.cuda.empty_cache()
    bytes, free = int(need * 2 * math.prod(shape)) + (2 << 30), torch.cuda.mem_get_info()[0]
    if free < bytes:
        reason = f"needs {bytes >> 30} GiB of free GPU memory"
        (pytest.fail if REQUIRE_CUDA else pytest.skip)(reason)
    return torch.empty(shape, dtype=torch.float16, device=cuda).uniform_(-1, 1)


LARGE = {  # samples, sides, and memory in multiples of the input: input or output exceed 2**31
    "smooth": (65, (1024, 1025), 2),
    "up": (65, (512, 513), 5),
    "down": (65, (1024, 1026), 1.25),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("operation", LARGE)
def test_more_than_two_to_the_31_elements(operation, layout, cuda):
    """The first sample, the one that holds element 2**31, and the last."""
    samples, sides, need = LARGE[operation]
    up, down, pad = RATES[operation]
    # channels_last: allocated as such, a copy would need as much again
    if layout == torch.channels_last:
        x = half_images(need, cuda, samples, *sides, 32).permute(0, 3, 1, 2)
    else:
        x = half_images(need, cuda, samples, 32, *sides)
    taps = torch.tensor(TAPS, device=cuda) / 8
    out = upfirdn2d(x, taps, up, down, pad)
    assert max(x.numel(), out.numel()) > 2**31
    for n in (0, samples - 2, samples - 1):
        expected = native.resample(
            x[n : n + 1, -4:].double(),
            taps.double(),
            taps.double(),
            (up, up),
            (down, down),
            pad * 2,
        )
        assert_close(out[n : n + 1, -4:], expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_activation_of_more_than_two_to_the_31_elements(layout, cuda):
    if layout == torch.channels_last:
        x = half_images(2, cuda, 65, 1024, 1025, 32).permute(0, 3, 1, 2)
    else:
        x = half_images(2, cuda, 65, 32, 1024, 1025)
    bias, noise = torch.randn(32, device=cuda), torch.randn(65, 1, 1024, 1025, device=cuda)
    out = ops.bias_act(x, bias, noise)
    for n in (0, 63, 64):
        expected = ops.bias_act(x[n : n + 1, -4:].double(), bias[-4:], noise[n : n + 1])
        assert_close(out[n : n + 1, -4:], expected)


def test_one_plane_of_more_than_two_to_the_31_elements(cuda):
    side = 46342
    x = half_images(2, cuda, 1, 1, side, side)
    taps = torch.tensor(TAPS, device=cuda) / 8
    out = upfirdn2d(x, taps)
    for rows in (slice(0, 64), slice(side - 67, side - 3)):
        part = x[:, :, rows.start : rows.stop + 3, -4099:]
        expected = native.resample(
            part.double(), taps.double(), taps.double(), (1, 1), (1, 1), (0,) * 4
        )
        assert_close(out[:, :, rows, -4096:], expected)


def test_the_kernels_gradient_of_more_than_two_to_the_31_elements(cuda):
    """The sum over the batch, sample by sample in float64."""
    x = half_images(1, cuda, 65, 32, 1024, 1025)
    rest = ((1, 1), (1, 1), (1, 0, 1, 0), (2, 2))
    w = OPS._upfirdn2d_kernel_grad.default(x, x, *rest)
    parts = [
        OPS._upfirdn2d_kernel_grad.default(x[n : n + 1], x[n : n + 1], *rest).double()
        for n in range(65)
    ]
    assert_close(w, torch.stack(parts).sum(0))


def test_backward_of_more_than_two_to_the_31_elements(cuda):
    up, down, size = (2, 2), (1, 1), (1024, 1026)
    grad = half_images(1.25, cuda, 65, 32, *size)
    taps = torch.tensor(TAPS, device=cuda) / 8
    in_size = (size[0] // 2, size[1] // 2)
    g_pad = geometry.adjoint_pads(in_size, size, up, down, (2, 1, 2, 1), (4, 4))
    out = OPS._upfirdn2d.default(grad, taps, taps, down, up, g_pad, True)
    assert out.shape == (65, 32, *in_size)
    for n in (0, 63, 64):
        wide = grad[n : n + 1, -4:].double()
        expected = native.resample(wide, taps.double().flip(0), None, down, up, g_pad)
        assert_close(out[n : n + 1, -4:], expected)


# Filtered activations: every row of their table, and the kernels beside it


def filtered_snake_of_bigvgan(x, alpha, beta, taps):
    call = {"up": 2, "down": 2, "pad": (6, 5), "down_pad": (5, 6), "padding_mode": "replicate"}
    return ops.filtered_snake(x, alpha, beta, 2 * taps, taps, **call)


def filtered_lrelu_of_stylegan3(x, bias, first, second):
    """A layer with six taps a factor; config R filters in 2-D at last."""
    up = first.shape[0] // 6
    return ops.filtered_lrelu(x, first, second, bias, up, 2, (3, 9, 3 * up, 8), gain=1.4, clamp=2.0)


def lowpass(cuda, taps, cutoff=0.5):
    return torch.tensor(kaiser_lowpass(taps, cutoff, 4.0), device=cuda)


def kernels_of_stylegan3(cuda, up, radial=False):
    second = lowpass(cuda, 12)
    second = torch.outer(second, second) if radial else second
    return lowpass(cuda, 6 * up, 1 / up) * up, second


FILTERED = {  # name: factor, planes' size, config R
    "t": (2, (36, 52), False),
    "t, 4x": (4, (36, 20), False),
    "t, many tiles": (2, (148, 131), False),
    "t, one tile": (2, (6, 7), False),
    "r": (2, (36, 52), True),
    "r, 4x": (4, (20, 36), True),
}


def gradients(call, leaves, kernels, dtype):
    """The result, and the gradients in the leaves; of a random gradient, rounded to dtype."""
    leaves = [t.detach().requires_grad_() for t in leaves]
    out = call(*leaves, *kernels)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return (out.detach(), *torch.autograd.grad(out, leaves, grad.to(out)))


def assert_gradients_close(call, leaves, kernels):
    """Equal to float64 on the CPU, whose kernels share nothing with those of a GPU."""
    dtype = leaves[0].dtype
    got = gradients(call, leaves, kernels, dtype)
    wide = [[t.double().cpu() for t in tensors] for tensors in (leaves, kernels)]
    for value, wanted in zip(got, gradients(call, *wide, dtype), strict=True):
        scale = wanted.abs().max().item()
        error = (value.double().cpu() - wanted).abs().max().item()
        assert error <= (TOLERANCE[value.dtype] + 1e-5) * scale, (error, scale)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", FILTERED.values(), ids=FILTERED)
def test_filtered_lrelu_of_stylegan3(layer, dtype, layout, cuda):
    up, size, radial = layer
    x = torch.randn(2, 5, *size, device=cuda).to(dtype).contiguous(memory_format=layout)
    leaves = x, torch.randn(5, device=cuda)
    assert_gradients_close(
        filtered_lrelu_of_stylegan3, leaves, kernels_of_stylegan3(cuda, up, radial)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [1, 7, 507, 508, 509, 1016, 1017, 1024, 3000])
def test_filtered_snake_of_bigvgan(length, dtype, cuda):
    """Lengths about the ends of a tile, which take what lies beyond the ends of the signal."""
    x = torch.randn(2, 5, length, device=cuda).to(dtype)
    leaves = (x, *(torch.rand(2, 5, device=cuda) + 0.5))
    assert_gradients_close(filtered_snake_of_bigvgan, leaves, [lowpass(cuda, 12)])


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_filtered_activations_beside_the_table(layout, dtype, mode, cuda):
    """Other factors and taps, a 2-D kernel, and 33 channels, which fill no vector."""
    call = {"up": (3, 2), "down": (2, 3), "pad": (4, 5, 3, 2), "down_pad": (1, 2, 0, 3)}
    x = torch.randn(2, 33, 19, 23, device=cuda).to(dtype).contiguous(memory_format=layout)
    assert_gradients_close(
        lambda x, bias, first_x, first_y, second: ops.filtered_lrelu(
            x, (first_x, first_y), second, bias, padding_mode=mode, **call
        ),
        (x, torch.randn(33, device=cuda)),
        (lowpass(cuda, 7), lowpass(cuda, 5), torch.rand(3, 4, device=cuda)),
    )


def test_filtered_activations_of_many_taps(cuda):
    """No tile holds what 250 x 250 taps read: each result is computed by loops."""
    x, kernel = torch.randn(1, 1, 260, 260, device=cuda), torch.randn(250, 250, device=cuda) / 250
    assert_gradients_close(ops.filtered_lrelu, [x], [kernel, lowpass(cuda, 3)])


def test_filtered_activations_never_store_the_large_image(cuda):
    """Forward and backward take their results and 1 MB, of an image of 16 times the size."""
    x = torch.randn(1, 16, 256, 256, device=cuda, requires_grad=True)
    bias = torch.zeros(16, device=cuda, requires_grad=True)
    kernels = kernels_of_stylegan3(cuda, 4)
    peak, out = peak_bytes(lambda: filtered_lrelu_of_stylegan3(x, bias, *kernels))
    assert peak <= out.nbytes + (1 << 20)
    grad = torch.ones_like(out)
    peak, _ = peak_bytes(lambda: torch.autograd.grad(out, (x, bias), grad))
    assert peak <= x.nbytes + (1 << 20)


def test_filtered_gradients_repeat_bit_for_bit(cuda):
    leaves = (torch.randn(4, 33, 5000, device=cuda), *(torch.rand(2, 33, device=cuda) + 0.5))
    call = filtered_snake_of_bigvgan, leaves, [lowpass(cuda, 12)], torch.float32
    first = gradients(*call)
    for _ in range(5):
        assert all(map(torch.equal, first, gradients(*call)))


def test_filtered_activations_of_more_planes_than_a_grid_has_rows(cuda):
    x, taps = torch.randn(70_000, 1, 9, device=cuda), lowpass(cuda, 12)
    alpha = torch.rand(1, device=cuda) + 0.5
    out = filtered_snake_of_bigvgan(x, alpha, alpha, taps)
    last = filtered_snake_of_bigvgan(x[-1:], alpha, alpha, taps)
    assert torch.equal(out[-1:], last)


def test_a_sine_of_a_large_argument(cuda):
    x, alpha = torch.full((1, 1, 64), 3e4, device=cuda), torch.full((1,), 7.0, device=cuda)
    out = ops.filtered_snake(x, alpha)
    torch.testing.assert_close(out, x + torch.sin(alpha * x) ** 2 / 7, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_filtered_taps_that_are_not_finite(bad, cuda):
    """They spread over the samples that exist alone: the results without one are finite."""
    taps = lowpass(cuda, 12)
    broken = taps.clone()
    broken[0] = bad
    x = torch.rand(1, 2, 40, 40, device=cuda)
    call = {"up": 2, "down": 2, "pad": (30, 0, 30, 0)}
    out = ops.filtered_lrelu(x, broken, taps, **call)
    expected = ops.filtered_lrelu(*(t.double().cpu() for t in (x, broken, taps)), **call)
    assert torch.equal(out.cpu().isfinite(), expected.isfinite())
    assert out.isfinite().any()
    assert not out.isfinite().all()
