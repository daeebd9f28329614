# SPDX-License-Identifier: BSD-3-Clause
"""Equivariance in decibels, against what NVIDIA's ``metrics/equivariance.py`` computes.

``scripts/equivariance_fixtures.py`` records that; it imports the cases below.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from examples.stylegan import equivariance, transforms
from examples.stylegan.generator import Generator

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = Path(__file__).parent / "fixtures" / "equivariance.npz"
SIDE = 24
SHIFTS = {  # in widths; 24 * 0.0625 is 1.5, which is rounded to 2, and 24 * 0.1041666 is near 2.5
    "small": (0.0625, -0.11),
    "half": (-0.0625, 2.5 / 24),
    "none": (0.0, 0.0),
    "far": (0.9, -1.5),
}
ANGLES = {"small": 0.3, "quarter": math.pi / 2, "large": -2.7, "none": 0.0}
SEED, IMAGES, BATCH = 5, 6, 3  # of the decibels


def example() -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).standard_normal((1, 2, SIDE, SIDE))).float()


class Waves(nn.Module):
    """A generator that is all but equivariant: waves bent by a leaky ReLU, and noise that stays."""

    resolution, style_dim, num_styles = 32, 6, 1

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Module()
        self.input.register_buffer("transform", torch.eye(3))
        rng = np.random.RandomState(1)
        self.frequencies = torch.from_numpy(rng.uniform(-9, 9, (self.style_dim, 2))).float()

    def fixed_noise(self) -> list[Tensor]:
        return [torch.zeros(1, 1, self.resolution, self.resolution)]

    def mapping(self, z: Tensor) -> Tensor:
        return z.tanh()

    def repeat(self, w: Tensor) -> Tensor:
        return w[:, None]

    def synthesis(self, styles: Tensor, noise: list[Tensor]) -> Tensor:
        at = (torch.arange(self.resolution) + 0.5) / self.resolution - 0.5
        x, y = torch.meshgrid(at, at, indexing="xy")
        place = torch.stack((x, y, torch.ones_like(x)), 2) @ self.input.transform.T  # [H, W, 3]
        phases = 2 * math.pi * (place[..., :2] @ self.frequencies.T)  # [H, W, style_dim]
        waves = torch.sin(phases + 3 * styles[:, :, None])  # [N, H, W, style_dim]
        image = nn.functional.leaky_relu(waves.sum(3)[:, None] / 2, 0.2)
        return torch.cat((image, image.square() / 2), 1) + noise[0] / 50


@pytest.fixture(scope="module")
def recorded():
    with np.load(FILE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def assert_like(found, recorded, name, flipped=0):
    torch.testing.assert_close(
        found.images, recorded[f"{name} images"], rtol=0, atol=2e-5, msg=lambda m: f"{name}: {m}"
    )
    differ = (found.mask.expand_as(found.images) != recorded[f"{name} mask"]).sum()
    assert differ <= flipped * found.images.shape[1], name
    assert set(found.mask.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", SHIFTS)
def test_translations_are_the_originals(name, recorded):
    shift = SHIFTS[name]
    found = equivariance.translate_by_pixels(example(), *shift)
    assert_like(found, recorded, f"integer {name}")
    assert_like(equivariance.translate(example(), *shift), recorded, f"fractional {name}")


@pytest.mark.parametrize("name", ANGLES)
def test_rotations_are_the_originals(name, recorded):
    """The mask may differ where the nearest sample is a tie: in a corner's pixel or two."""
    found = equivariance.rotate(example(), ANGLES[name])
    assert_like(found, recorded, f"rotation {name}", flipped=2)
    assert found.mask.sum() > 100
    assert_like(equivariance.blur_as_rotated(example(), ANGLES[name]), recorded, f"pseudo {name}")


def test_decibels_are_the_originals(recorded):
    found = equivariance.measure(Waves(), IMAGES, SEED, BATCH)
    assert list(found) == ["EQ-T", "EQ-T_frac", "EQ-R"]
    expected = recorded["decibels"].tolist()
    assert 15 < min(expected) < max(expected) < 45  # neither nothing nor rounding errors
    assert list(found.values()) == pytest.approx(expected, abs=0.01)


def test_a_direction_is_what_a_viewer_sees():
    generator = Waves()
    styles, silence = torch.zeros(1, 1, 6), generator.fixed_noise()

    def drawn(movement):
        with transforms.moved(generator, movement):
            return generator.synthesis(styles, silence)[0, 0]

    still = drawn(torch.eye(3))
    right_and_down = drawn(transforms.translation(4 / 32, 8 / 32))
    torch.testing.assert_close(right_and_down[8:, 4:], still[:-8, :-4], rtol=0, atol=1e-4)
    turned = drawn(transforms.rotation(math.pi / 2))
    torch.testing.assert_close(turned, still.rot90(), rtol=0, atol=1e-4)  # counter-clockwise
    assert (turned - still.rot90(-1)).abs().max() > 0.1
    images = equivariance.rotate(still[None, None], math.pi / 2)
    inside = images.mask == 1
    difference = (images.images - still.rot90())[0, 0][inside].abs().mean()
    assert difference < 0.2 * (still - still.rot90())[inside].abs().mean()
    assert torch.equal(generator.input.transform, torch.eye(3))


def test_the_transform_is_put_back_after_a_failure():
    generator = Waves()

    def fail():
        with transforms.moved(generator, transforms.translation(1, 2)):
            assert generator.input.transform[:2, 2].tolist() == [-1, -2]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(generator.input.transform, torch.eye(3))


def test_an_exact_generator_has_no_noise_in_decibels():
    class Flat(Waves):
        def synthesis(self, styles, noise):
            return torch.ones(len(styles), 3, 32, 32)

    found = equivariance.measure(Flat(), 2)
    assert found["EQ-T"] == math.inf
    assert found["EQ-T_frac"] > 100
    assert found["EQ-R"] > 40  # the filter takes a little off, where ones end at the edges


def test_what_cannot_be_measured_is_said():
    generator = Generator(16, 8, 1, channels={4: 4, 8: 4, 16: 4})
    with pytest.raises(ValueError, match=r"generator must have a Fourier input, which can be mov"):
        equivariance.measure(generator, 4)
    with pytest.raises(ValueError, match="images must be >= 1, got 0"):
        equivariance.measure(Waves(), 0)
    with pytest.raises(ValueError, match="batch must be >= 1, got -1"):
        equivariance.measure(Waves(), 4, batch=-1)

    class Small(Waves):
        resolution = 8

    with pytest.raises(ValueError, match="resolution must be 16 or more"):
        equivariance.measure(Small(), 1)

    class Broken(Waves):
        def synthesis(self, styles, noise):
            return super().synthesis(styles, noise) * math.nan

    with pytest.raises(FloatingPointError, match="every pixel must be finite"):
        equivariance.measure(Broken(), 1)
