# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: E501
"""The compiled CPU kernels of filtered activations: how they cut, and what they refuse.

Each case is cut along the axes that it names; ``FILTERED_ACT.native``, which tests/test_filtered_act.py
holds against the oracle, computes a few whole channels at a time.
"""  # fmt: skip

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from resample_layers.ops import extension
from resample_layers.ops.filtered_act import FILTERED_ACT, FILTERED_ACT_GRAD
from resample_layers.ops.nonlinearity import LEAKY_RELU, SNAKE

from .tools import require

RAW, RAW_GRAD = (getattr(torch.ops.resample_layers, n) for n in ("filtered_act", "filtered_act_grad"))  # fmt: skip
CASES = {  # shape, taps (up, down) by (x, y; 0: one tap of 1), up, down, pad, down_pad, replicate
    "bands of rows": ((1, 1, 110, 70), (12, 12), (12, 12), (2, 2), (2, 2), (9, 8, 9, 8), (0, 0, 0, 0), False),
    "bands, rows first": ((1, 1, 140, 40), (6, 12), (12, 6), (2, 5), (1, 3), (3, 3, 9, 8), (4, 6, 5, 6), True),
    "tiles of columns": ((1, 1, 40, 500), (12, 12), (12, 12), (2, 2), (2, 2), (9, 8, 9, 8), (5, 6, 5, 6), True),
    "factors apart": ((1, 1, 50, 250), (7, 3), (5, 4), (5, 4), (3, 7), (3, 9, 2, 1), (1, -3, 2, 2), False),
    "groups of channels": ((1, 40, 26, 49), (6, 12), (6, 1), (5, 5), (3, 1), (-2, 3, 5, -4), (12, 13, 7, -4), True),
    "signals": ((2, 19, 1, 2500), (12, 0), (12, 0), (2, 1), (2, 1), (6, 5, 0, 0), (5, 6, 0, 0), True),
    "signals with a tap in y": ((2, 19, 1, 2500), (12, 1), (12, 0), (2, 1), (2, 1), (6, 5, 0, 0), (5, 6, 0, 0), True),
    "signals, factors apart": ((1, 3, 1, 5000), (9, 0), (7, 0), (3, 1), (5, 1), (-6, 8, 0, 0), (3, 9, 0, 0), False),
    "signals, components of the output": ((1, 40, 1, 3001), (7, 0), (5, 0), (4, 1), (2, 1), (3, 4, 0, 0), (2, 2, 0, 0), True),
    "signals, components of the input": ((1, 5, 1, 9001), (5, 0), (9, 0), (1, 1), (4, 1), (2, 2, 0, 0), (4, 5, 0, 0), False),
    "signals, many components": ((1, 2, 1, 700), (21, 0), (19, 0), (5, 1), (7, 1), (9, 9, 0, 0), (9, 9, 0, 0), True),
    "signals, factors of 1": ((3, 2, 1, 5000), (3, 0), (1, 0), (1, 1), (1, 1), (1, 1, 0, 0), (0, 0, 0, 0), False),
    "signals, a phase without taps": ((1, 2, 1, 3000), (2, 0), (3, 0), (3, 1), (3, 1), (0, 0, 0, 0), (1, 1, 0, 0), False),
    "signals, padded far": ((1, 2, 1, 50), (12, 0), (12, 0), (2, 1), (2, 1), (9000, 7000, 0, 0), (8000, 9000, 0, 0), False),
    "signals, continued far": ((1, 2, 1, 50), (12, 0), (12, 0), (2, 1), (2, 1), (9000, 7000, 0, 0), (8000, 9000, 0, 0), True),
    "signals, padded behind": ((1, 1, 1, 50), (12, 0), (12, 0), (2, 1), (2, 1), (0, 0, 0, 0), (0, 3000000, 0, 0), False),
    "signals, continued far, factors apart": ((1, 2, 1, 50), (9, 0), (7, 0), (3, 1), (5, 1), (9001, 7003, 0, 0), (8002, 9005, 0, 0), True),
    "signals, cropped beside zeros": ((1, 2, 1, 20000), (12, 0), (12, 0), (2, 1), (2, 1), (-9001, -7000, 0, 0), (-5001, -6000, 0, 0), False),
    "signals, cropped": ((1, 2, 1, 20000), (12, 0), (12, 0), (2, 1), (2, 1), (-9001, -7000, 0, 0), (-5001, -6000, 0, 0), True),
}  # fmt: skip


def draw(case, activation, dtype, channels_last=False):
    shape, up_taps, down_taps, *rest = CASES[case]
    generator = torch.Generator().manual_seed(0)
    values = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    x = values(*shape)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    c = shape[1]
    parameters = (
        (values(c).abs() + 0.3, values(c).abs() + 0.5) if activation == SNAKE else (None,) * 2
    )
    taps = [values(n) / n**0.5 if n else torch.ones(1, dtype=dtype) for n in (*up_taps, *down_taps)]
    constants = (0.2, 2**0.5, 0.8) if activation == LEAKY_RELU else (1.0, 1.0, None)
    args = (x, values(c), *parameters, *taps, *rest, activation, *constants)
    return args, values(*FILTERED_ACT.native(*args).shape)


def gradients(op, grad, args):
    return op(grad, *args, [t is not None for t in args[1:4]])


@pytest.mark.parametrize(
    ("case", "activation", "channels_last"),
    [(case, SNAKE, False) for case in CASES]
    + [("bands of rows", LEAKY_RELU, False), ("groups of channels", SNAKE, True), ("signals", LEAKY_RELU, True),
       ("signals, components of the output", SNAKE, True), ("signals", LEAKY_RELU, False),
       ("signals, continued far", SNAKE, True), ("signals, cropped", SNAKE, True)],
)  # fmt: skip
def test_the_cut_changes_nothing(case, activation, channels_last):
    args, grad = draw(case, activation, torch.float64, channels_last)
    torch.testing.assert_close(RAW(*args), FILTERED_ACT.native(*args), rtol=1e-10, atol=1e-11)
    ours = gradients(RAW_GRAD, grad, args)
    for a, b in zip(ours, gradients(FILTERED_ACT_GRAD.native, grad, args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * b.abs().amax().item() if b.numel() else 0)  # fmt: skip


@pytest.mark.parametrize("case", ["bands of rows", "signals", "signals, factors apart", "groups of channels"])  # fmt: skip
def test_threads_change_no_bit(case):
    args, grad = draw(case, SNAKE, torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append((RAW(*args), *gradients(RAW_GRAD, grad, args)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_sine_of_any_argument(dtype):
    """Near the zeros of the sine, near where the polynomials end, and beyond."""
    wide = np.longdouble
    multiples = np.concatenate([np.arange(0, 6400, 7), np.arange(3.1e5, 3.2e5, 1e3), 10.0 ** np.arange(3, 18)])  # fmt: skip
    points = np.outer(multiples, [np.pi / 2]).ravel() + np.linspace(-1e-3, 1.6, len(multiples))
    m = torch.tensor(np.concatenate([points, -points, [1e-30, 2.5e-7, 19999.0, 20001.0, 9.9e5, 1.1e6]])).to(dtype)  # fmt: skip
    one = torch.ones(1, dtype=dtype)
    rest = ((1, 1), (1, 1), (0,) * 4, (0,) * 4, False, SNAKE, 1.0, 1.0, None)
    args = (m.reshape(1, 1, 1, -1), None, one, one, one, one, one, one, *rest)
    grad = torch.ones_like(args[0])
    epsilon = torch.finfo(dtype).eps
    exact = m.numpy().astype(wide)
    scale = 1 / (1 + wide(1e-9))
    expected = exact + np.sin(exact) ** 2 * scale
    error = np.abs(RAW(*args).flatten().numpy().astype(wide) - expected)
    assert (error <= 2 * epsilon * np.maximum(np.abs(expected), 1e-30)).all()
    slope = gradients(RAW_GRAD, grad, args)[0].flatten().numpy().astype(wide)
    # Without fused products 3.3 were seen, with them 2.2.
    assert (np.abs(slope - (1 + np.sin(2 * exact) * scale)) <= 4 * epsilon).all()


def test_the_sine_of_what_is_not_finite():
    """sin(inf) is no number, as torch has it."""
    one = torch.ones(1)
    m = torch.tensor([float("inf"), -float("inf"), float("nan"), 1.0])
    rest = ((1, 1), (1, 1), (0,) * 4, (0,) * 4, False, SNAKE, 1.0, 1.0, None)
    out = RAW(m.reshape(1, 1, 1, -1), None, one, one, one, one, one, one, *rest).flatten()
    assert out.isnan().tolist() == [True, True, True, False]


@pytest.mark.parametrize("kernel", [4, 6], ids=["up_kernel", "down_kernel"])
def test_an_infinite_tap_of_a_signal_meets_no_padding(kernel):
    """inf * 0 is no number: zeros beside the signal are not samples."""
    one, taps = torch.ones(1), torch.tensor([1.0, float("inf")])
    kernels = [one] * 4
    kernels[kernel - 4] = taps
    x = torch.ones(1, 1, 1, 3)
    rest = ((1, 1), (1, 1), (1, 1, 0, 0), (1, 1, 0, 0), False, LEAKY_RELU, 0.2, 1.0, None)
    out = RAW(x, None, None, None, *kernels, *rest)
    assert not out.isnan().any() if kernel == 4 else out[..., 2:-1].isinf().all()
    torch.testing.assert_close(out, FILTERED_ACT.native(x, None, None, None, *kernels, *rest), equal_nan=True)  # fmt: skip


@pytest.fixture
def compiled():
    require("compiled kernels", found=extension.choices["cpu"].backend == "extension")


PEAK = """
import os, sys
# Linux counts the pages of each processor apart, and reads their sum without the last few of each
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from pathlib import Path

import torch

from resample_layers.ops import filtered_lrelu

torch.set_num_threads(2)
dtype, size, count, up, down = getattr(torch, sys.argv[1]), *map(int, sys.argv[2:])


def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def beside(call):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    results = call()
    return memory("VmHWM") - before - sum(t.nbytes for t in results), results


taps, bias = torch.rand(count), torch.rand(64, requires_grad=True)
x = torch.randn(1, 64, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
x.requires_grad_()
peaks = []
for _ in range(4):
    pad = (count // 2 + 1, count // 2)
    first, (out,) = beside(lambda: (filtered_lrelu(x, taps, taps, bias, up, down, pad),))
    grad = torch.ones_like(out)
    second, _ = beside(lambda: torch.autograd.grad(out, (x, bias), grad))
    peaks.append(max(first, second))
print(min(peaks[1:]))  # the first call also pays for what torch sets up once
"""


@pytest.mark.parametrize(
    ("size", "taps", "up", "down"), [(160, 24, 4, 2), (160, 24, 2, 2), (160, 12, 2, 2)]
)
def test_blocks_of_channels_last_stay_small(size, taps, up, down, compiled):
    """Two threads take less than 1 MB beside the results, as in every other layout."""
    require("/proc/self/clear_refs", found=os.access("/proc/self/clear_refs", os.W_OK))
    command = [sys.executable, "-c", PEAK, "bfloat16", *map(str, (size, taps, up, down))]
    # What is freed goes back to the system at once, and does not hide what is taken later.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    environment["MIMALLOC_PURGE_DELAY"] = "0"  # torch's allocator on arm64
    root = Path(__file__).parent.parent
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20


def test_parameters_of_float64_leave_the_sums_in_float32():
    """Only the input and the kernels choose float64, as the operator without data says."""
    args, grad = draw("factors apart", SNAKE, torch.float32)
    args = (args[0], *(t.double() for t in args[1:4]), *args[4:])
    needs = [True] * 3
    torch.library.opcheck(RAW.default, args)
    torch.library.opcheck(RAW_GRAD.default, (grad, *args, needs))
    assert [t.dtype for t in RAW_GRAD(grad, *args, needs)] == [torch.float32] * 4


@pytest.mark.parametrize("activation", [LEAKY_RELU, SNAKE])
@pytest.mark.parametrize("separable", [True, False])
def test_input_without_samples_meets_no_tap(activation, separable):
    """Only samples are multiplied: a NaN tap of up_kernel meets none; down_kernel's meet zeros."""
    nan, one = float("nan"), torch.ones(1)
    x = torch.empty(2, 2, 0, 3)
    taps = torch.tensor([1.0, nan])
    up_kernel = (taps, taps) if separable else (taps.expand(2, 2), None)
    down_kernel = (one, one) if separable else (one.expand(1, 1), None)
    values = torch.tensor([1.0, 2.0])
    infinite = torch.tensor([1.0, float("inf")])  # inf * 0 is no number, as torch has it
    parameters = (infinite, values) if activation == SNAKE else (None, None)
    rest = ((1, 1), (1, 1), (2, 2, 2, 2), (0, 0, 0, 0), False, activation, 0.2, 1.0, None)
    args = (x, values, *parameters, *up_kernel, *down_kernel, *rest)
    expected = FILTERED_ACT.native(*args)
    assert expected[:, 0].eq(0).all()
    assert expected[:, 1].isnan().all() if activation == SNAKE else expected.eq(0).all()
    torch.testing.assert_close(RAW(*args), expected, equal_nan=True)
    args = (*args[:6], *(None if t is None else t * nan for t in down_kernel), *args[8:])
    torch.testing.assert_close(RAW(*args), FILTERED_ACT.native(*args), equal_nan=True)


SENTENCES = [  # arguments that change, what is said
    ({"input": torch.zeros(3, 4, 4)}, "input must have 4 dimensions [N, C, H, W], got 3"),
    ({"bias": torch.ones(3, 1)}, "bias must be [3], got [3, 1]"),
    ({"bias": torch.ones(2)}, "bias must be [3], got [2]"),
    ({"alpha": torch.ones(())}, "alpha must be [3], got []"),
    ({"up_kernel": torch.ones(0, 1)}, "up_kernel must have at least one tap, got height x width 0x1"),
    ({"down_kernel": torch.ones(1, 0)}, "down_kernel must have at least one tap, got height x width 1x0"),
    ({"up_kernel": torch.ones(1, 1, 1)}, "up_kernel must have 1 or 2 dimensions, got 3"),
    ({"up_kernel": torch.ones(1)}, "up_kernel of 1 dimension must come with up_taps_y, got none"),
    ({"down_taps_y": torch.ones(4)},
     "down_kernel of 2 dimensions must come without down_taps_y, got down_taps_y of shape [4]"),
    ({"up_kernel": torch.ones(1), "up_taps_y": torch.ones(1, 1)}, "up_taps_y must have 1 dimension, got 2"),
    ({"up": (1, 1, 1)}, "up must have 2 values (x, y), got 3"),
    ({"down": (1, 1, 1)}, "down must have 2 values (x, y), got 3"),
    ({"up": (0, 1)}, "up must be >= 1 in both axes, got (0, 1)"),
    ({"down": (1, -2)}, "down must be >= 1 in both axes, got (1, -2)"),
    ({"up_pad": (0, 0, 0)}, "up_pad must have 4 values (x0, x1, y0, y1), got 3"),
    ({"down_pad": (0,) * 5}, "down_pad must have 4 values (x0, x1, y0, y1), got 5"),
    ({"up_pad": (0, 0, 0, -4)},
     "the upsampled signal and the output must be at least 1x1 (height x width), got 0x4 and 0x4 from input 4x4"),
    ({"input": torch.zeros(1, 3, 0, 4), "up_pad": (0, 0, 1, 0), "replicate": True},
     "input must have samples where replicate continues them, got 0x4"),
    ({"activation": 9}, "activation must be in [0, 4), got 9"),
    ({"activation": SNAKE}, "activation 1 must come with alpha and beta, got none"),
    ({"activation": SNAKE, "alpha": torch.ones(3)},
     "activation 1 must come with alpha and beta, got alpha without beta"),
    ({"activation": SNAKE, "beta": torch.ones(3)},
     "activation 1 must come with alpha and beta, got beta without alpha"),
    ({"gain": 0.0}, "gain must be finite and > 0, got 0"),
    ({"gain": float("inf")}, "gain must be finite and > 0, got inf"),
    ({"clamp": -2.0}, "clamp must be finite and > 0, got -2"),
    ({"clamp": float("nan")}, "clamp must be finite and > 0, got nan"),
    ({"grad": torch.ones(1, 3, 4, 5)},
     "grad must be [1, 3, 4, 4], the shape of the op's output, got [1, 3, 4, 5]"),
    ({"grad": torch.ones(1, 3, 4, 4).double()}, "grad must be float32, the dtype of input, got float64"),
    ({"grad": torch.ones(1, 3, 4, 4).half()}, "grad must be float32, the dtype of input, got float16"),
    ({"grad": torch.ones(1, 3, 4, 4), "needs": [True, False, False]},
     "needs must not ask for the gradient of an operand that is absent, got true at 0"),
    ({"grad": torch.ones(1, 3, 4, 4), "needs": [False]}, "needs must have 3 values, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), SENTENCES, ids=[s for _, s in SENTENCES])
def test_sentences_of_the_operators(change, sentence, compiled):
    """What a call of the raw operator gets to hear, which Python has not looked at."""
    one = torch.ones(1, 1)
    names = ("input", "bias", "alpha", "beta", "up_kernel", "up_taps_y", "down_kernel", "down_taps_y")  # fmt: skip
    tensors = dict.fromkeys(names) | {"input": torch.zeros(1, 3, 4, 4), "up_kernel": one, "down_kernel": one}  # fmt: skip
    constants = {"up": (1, 1), "down": (1, 1), "up_pad": (0,) * 4, "down_pad": (0,) * 4}
    constants |= {"replicate": False, "activation": LEAKY_RELU, "negative_slope": 0.2}
    call = tensors | constants | {"gain": 1.0, "clamp": None} | change
    operator = torch.ops.resample_layers._filtered_act
    if "grad" in change:
        operator = torch.ops.resample_layers._filtered_act_grad
        call = {"needs": [False] * 3} | call
    with pytest.raises(RuntimeError) as error:
        operator(**call)
    assert str(error.value).splitlines()[0].endswith(f", {sentence}")  # after where it was found
