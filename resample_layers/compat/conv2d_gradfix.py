# SPDX-License-Identifier: BSD-3-Clause
"""What rosinality and NVIDIA import under this name: torch's convolutions.

The originals replaced torch's convolution for versions of torch whose second derivative was slow,
up to 1.10; on every later version they call torch's, as these do. ``no_weight_gradients`` then has
no effect: ``torch.autograd.grad(..., inputs=[images])`` computes no gradient of a weight anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.functional import conv2d, conv_transpose2d

__all__ = ["conv2d", "conv_transpose2d", "no_weight_gradients"]


@contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Do nothing: see above."""
    yield
