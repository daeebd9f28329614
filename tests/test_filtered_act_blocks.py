# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: E501
"""Filtered activations larger than a block of the CPU kernels, which cut what they compute.

Each case is cut along the axes that it names; ``FILTERED_ACT.native``, which tests/test_filtered_act.py
holds against the oracle, computes the whole at once.
"""  # fmt: skip

import numpy as np
import pytest
import torch

from resample_layers.ops.filtered_act import FILTERED_ACT, FILTERED_ACT_GRAD
from resample_layers.ops.nonlinearity import LEAKY_RELU, SNAKE

RAW, RAW_GRAD = (getattr(torch.ops.resample_layers, n) for n in ("filtered_act", "filtered_act_grad"))  # fmt: skip
CASES = {  # shape, taps (up, down) by (x, y), up, down, pad, down_pad, replicate
    "bands of rows": ((1, 1, 110, 70), (12, 12), (12, 12), (2, 2), (2, 2), (9, 8, 9, 8), (0, 0, 0, 0), False),
    "bands, rows first": ((1, 1, 140, 40), (6, 12), (12, 6), (2, 5), (1, 3), (3, 3, 9, 8), (4, 6, 5, 6), True),
    "tiles of columns": ((1, 1, 40, 500), (12, 12), (12, 12), (2, 2), (2, 2), (9, 8, 9, 8), (5, 6, 5, 6), True),
    "factors apart": ((1, 1, 50, 250), (7, 3), (5, 4), (5, 4), (3, 7), (3, 9, 2, 1), (1, -3, 2, 2), False),
    "groups of channels": ((1, 40, 26, 49), (6, 12), (6, 1), (5, 5), (3, 1), (-2, 3, 5, -4), (12, 13, 7, -4), True),
    "signals": ((2, 19, 1, 2500), (12, 1), (12, 1), (2, 1), (2, 1), (6, 5, 0, 0), (5, 6, 0, 0), True),
    "signals, factors apart": ((1, 3, 1, 5000), (9, 1), (7, 1), (3, 1), (5, 1), (-6, 8, 0, 0), (3, 9, 0, 0), False),
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
    taps = [values(n) / n**0.5 for n in (*up_taps, *down_taps)]
    constants = (0.2, 2**0.5, 0.8) if activation == LEAKY_RELU else (1.0, 1.0, None)
    args = (x, values(c), *parameters, *taps, *rest, activation, *constants)
    return args, values(*FILTERED_ACT.native(*args).shape)


def gradients(op, grad, args):
    return op(grad, *args, [t is not None for t in args[1:4]])


@pytest.mark.parametrize(
    ("case", "activation", "channels_last"),
    [(case, SNAKE, False) for case in CASES]
    + [("bands of rows", LEAKY_RELU, False), ("groups of channels", SNAKE, True), ("signals", LEAKY_RELU, True)],
)  # fmt: skip
def test_the_cut_changes_nothing(case, activation, channels_last):
    args, grad = draw(case, activation, torch.float64, channels_last)
    torch.testing.assert_close(RAW(*args), FILTERED_ACT.native(*args), rtol=1e-10, atol=1e-11)
    ours = gradients(RAW_GRAD, grad, args)
    for a, b in zip(ours, gradients(FILTERED_ACT_GRAD.native, grad, args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * b.abs().amax().item() if b.numel() else 0)  # fmt: skip


@pytest.mark.parametrize("case", ["bands of rows", "signals", "groups of channels"])
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
    assert (np.abs(slope - (1 + np.sin(2 * exact) * scale)) <= 3 * epsilon).all()


def test_the_sine_of_what_is_not_finite():
    """sin(inf) is no number, as torch has it."""
    one = torch.ones(1)
    m = torch.tensor([float("inf"), -float("inf"), float("nan"), 1.0])
    rest = ((1, 1), (1, 1), (0,) * 4, (0,) * 4, False, SNAKE, 1.0, 1.0, None)
    out = RAW(m.reshape(1, 1, 1, -1), None, one, one, one, one, one, one, *rest).flatten()
    assert out.isnan().tolist() == [True, True, True, False]
