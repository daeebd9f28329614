# SPDX-License-Identifier: BSD-3-Clause
"""Moving and turning what a generator draws, through the transform of its Fourier input.

A Fourier input, StyleGAN3's or that of a StyleGAN2 with ``input="fourier"``, has a buffer
``transform`` [3, 3]. It maps points (x, y, 1) of the picture to the points of the input that are
drawn there: so it is the inverse of the movement that the viewer sees. Lengths are widths of the
picture, x goes to the right and y down, and the origin is the middle.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def translation(x: float, y: float) -> Tensor:
    """The movement [3, 3] by ``x`` widths to the right and ``y`` down; float64."""
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 2], matrix[1, 2] = x, y
    return matrix


def rotation(angle: float) -> Tensor:
    """The turn [3, 3] about the middle by ``angle`` radians, counter-clockwise; float64."""
    cos, sin = math.cos(angle), math.sin(angle)
    # y goes down, so that the signs of the sines are the other way round
    return torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=torch.float64)


def transform_of(generator: Any) -> Tensor:
    """The buffer ``transform`` of a generator's input.

    Raises:
        ValueError: if the generator has none, as a StyleGAN2 with a constant input.
    """
    transform = getattr(generator.input, "transform", None)
    if transform is None:
        raise ValueError(
            "generator must have a Fourier input, which can be moved and turned, as StyleGAN3 has "
            'and StyleGAN2 with input="fourier"; got one with a '
            f"{type(generator.input).__name__}"
        )
    return transform


@contextlib.contextmanager
def moved(generator: Any, movement: Tensor) -> Iterator[None]:
    """Have a generator draw everything moved by ``movement`` [3, 3], for a while.

    The movement comes after that of the transform which the generator already has.

    Raises:
        ValueError: if the generator has no transform.
    """
    transform = transform_of(generator)
    before = transform.clone()
    inverse = torch.linalg.inv(movement.to(torch.float64)).to(transform.device)
    transform.copy_(before.to(torch.float64) @ inverse)
    try:
        yield
    finally:
        transform.copy_(before)
