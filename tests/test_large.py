# SPDX-License-Identifier: BSD-3-Clause
"""More than 2^31 elements on the CPU: ``make test-large``, on a machine with the memory for it."""

import os

import pytest
import torch

from resample_layers.ops import upfirdn2d, upfirdn2d_bias_act

pytestmark = pytest.mark.skipif(
    os.environ.get("RESAMPLE_LAYERS_LARGE") != "1",
    reason="tensors of 2^31 elements take 12 GB: make test-large",
)
SIDE = 2**15
COLUMNS = 2**16 + 64


@pytest.mark.parametrize("op", [upfirdn2d, upfirdn2d_bias_act])
def test_offsets_beyond_32_bits(op):
    """The last rows of an image of 2^31 + 2^21 pixels, against the same rows alone."""
    x = torch.zeros(1, 1, SIDE, COLUMNS, dtype=torch.float16)
    assert x.numel() > 2**31
    end = torch.randn(8, COLUMNS, generator=torch.Generator().manual_seed(0)).half()
    x[0, 0, -8:] = end
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    with torch.no_grad():
        out = op(x, taps, pad=(2, 1))
        wanted = op(torch.cat([torch.zeros(8, COLUMNS).half(), end])[None, None], taps, pad=(2, 1))
        assert out.numel() > 2**31
        assert torch.equal(out[:, :, -8:], wanted[:, :, -8:])
        assert out[:, :, -8:].any()
        assert not out[:, :, :8].any()


def test_a_batch_beyond_32_bits_in_a_gradient():
    """An input of 2^31 + 2^16 pixels that lies once in memory, and gives a small result."""
    x = torch.ones(1, 1, 1, 1, dtype=torch.float16).expand(1, 1, 2**16 + 2, 2**15).requires_grad_()
    taps = torch.ones(2, requires_grad=True)
    out = upfirdn2d(x, taps, down=2**10)
    grads = torch.autograd.grad(out.sum(), (x, taps))
    # In parts: torch would sum the whole in a copy of float64
    sums = [part.sum(dtype=torch.float64) for part in grads[0].split(2**12, dim=2)]
    assert sum(sums) == 4 * out.numel()
    torch.testing.assert_close(grads[1], torch.full((2,), 4.0 * out.numel()))
