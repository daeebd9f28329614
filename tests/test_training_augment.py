# SPDX-License-Identifier: BSD-3-Clause
"""The augmentation of what the discriminator sees."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from examples.stylegan import augment

from .training import assert_same, start

pytestmark = pytest.mark.usefixtures("one_thread")


def unit(n):
    return augment.Changes(torch.eye(3).repeat(n, 1, 1), torch.eye(4).repeat(n, 1, 1))


def test_no_augmentation_leaves_images_as_they_are_bit_for_bit():
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(augment.Augment()(images, unit(3)), images)
    rng = torch.Generator().manual_seed(0)
    drawn = augment.draw(50, 16, 0.0, rng)
    assert torch.equal(drawn.geometry, unit(50).geometry)
    assert torch.equal(drawn.colour, unit(50).colour)


def smooth_images(n, channels, side):
    """Sums of slow waves, which resampling keeps."""
    y, x = torch.meshgrid(*[(torch.arange(side) + 0.5) / side] * 2, indexing="ij")
    waves = torch.rand(n, channels, 3, 1, 1)
    shifted = [torch.cos(2 * math.pi * (x * (i + 1) + y * (2 - i)) + i) for i in range(3)]
    return (waves * torch.stack(shifted)).sum(2) / 3


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (augment._scale(torch.tensor([-1.0]), torch.tensor([1.0])), lambda x: x.flip(3)),
        # y points down, so that x turns into y clockwise
        (augment._turn(torch.tensor([math.pi / 2])), lambda x: torch.rot90(x, -1, (2, 3))),
        (
            augment._move(torch.tensor([0.25]), torch.tensor([-0.5])),
            lambda x: x.roll((4, -8), (3, 2)),
        ),
    ],
)
def test_geometry_moves_the_image(matrix, expected):
    images = smooth_images(2, 3, 32)
    changes = augment.Changes(matrix.repeat(2, 1, 1), unit(2).colour)
    inside = (slice(None), slice(None), slice(4, 14), slice(6, 26))  # what comes from inside
    moved = augment.Augment()(images, changes)
    assert (moved - images)[inside].abs().max() > 0.2
    torch.testing.assert_close(moved[inside], expected(images)[inside], rtol=0, atol=1e-2)


def test_geometry_leaves_no_border_on_flat_images():
    images = torch.tensor([1.0, -1.0, 0.5]).reshape(3, 1, 1, 1).expand(3, 3, 16, 16)
    rng = torch.Generator().manual_seed(0)
    pipe = augment.Augment()
    for _ in range(20):
        changes = augment.Changes(augment.draw(3, 16, 1.0, rng).geometry, unit(3).colour)
        torch.testing.assert_close(pipe(images, changes), images, rtol=0, atol=1e-5)


def polar(matrices):
    """(angle, stretch along x and y) of matrices [n, 3, 3] that are one or the other."""
    stretch = matrices[:, :2, :2].diagonal(dim1=1, dim2=2)
    return torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]), stretch


def moments(values):
    return values.mean().item(), values.std().item()


def test_each_step_of_the_geometry_is_as_the_paper_says():
    n, side = 20_000, 32
    rng = torch.Generator().manual_seed(0)
    steps = list(augment.geometry_steps(n, side, 1.0, rng))
    mirror, quarter, whole, scale, turn, stretch, turn_again, move = steps
    for step in steps:
        assert torch.equal(step[:, 2], torch.eye(3)[2].expand(n, 3))
    for step in (mirror, quarter, scale, turn, stretch, turn_again):
        assert (step[:, :2, 2] == 0).all()

    assert (mirror[:, 1, 1] == 1).all()
    assert mirror[:, 0, 0].abs().min() == 1
    assert mirror[:, 0, 0].mean().abs() < 0.03
    quarters = (polar(quarter)[0] / (math.pi / 2)).round().long() % 4
    assert torch.bincount(quarters, minlength=4).min() > 0.23 * n
    pixels = whole[:, :2, 2] * side / 2
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)
    for axis in range(2):
        assert (pixels[:, axis].min().item(), pixels[:, axis].max().item()) == (-4, 4)
        assert moments(pixels[:, axis]) == pytest.approx((0, 8 / math.sqrt(12)), abs=0.1)
    x, y = polar(scale)[1].unbind(1)
    assert torch.equal(x, y)
    assert moments(x.log2()) == pytest.approx((0, 0.2), abs=0.01)
    x, y = polar(stretch)[1].unbind(1)
    torch.testing.assert_close(x * y, torch.ones(n))
    assert moments(x.log2()) == pytest.approx((0, 0.2), abs=0.01)
    for step in (turn, turn_again):
        torch.testing.assert_close(torch.linalg.det(step), torch.ones(n))
        angle = polar(step)[0]
        assert moments(angle) == pytest.approx((0, 2 * math.pi / math.sqrt(12)), abs=0.05)
    for axis in range(2):
        assert moments(move[:, axis, 2]) == pytest.approx((0, 0.25), abs=0.01)


def test_each_step_of_the_colours_is_as_the_paper_says():
    n = 20_000
    rng = torch.Generator().manual_seed(0)
    steps = list(augment.colour_steps(n, 1.0, rng))
    brightness, contrast, flip, hue, saturation = steps
    unit, grey = torch.eye(3), torch.full((3,), 1 / math.sqrt(3))
    for step in steps[1:]:
        assert (step[:, :3, 3] == 0).all()
    assert torch.equal(brightness[:, :3, :3], unit.expand(n, 3, 3))
    shift = brightness[:, :3, 3]
    assert torch.equal(shift[:, :1].expand(n, 3), shift)
    assert moments(shift[:, 0]) == pytest.approx((0, 0.2), abs=0.01)
    factor = contrast[:, 0, 0]
    torch.testing.assert_close(contrast[:, :3, :3], factor[:, None, None] * unit)
    assert moments(factor.log2()) == pytest.approx((0, 0.5), abs=0.02)

    colour = torch.tensor([1.0, -1.0, 0.0]) / math.sqrt(2)  # across the grey axis
    third = torch.linalg.cross(grey, colour)
    along = flip[:, :3, :3] @ grey
    sign = along @ grey
    torch.testing.assert_close(along, sign[:, None] * grey)
    torch.testing.assert_close(flip[:, :3, :3] @ colour, colour.expand(n, 3))
    assert sign.mean().abs() < 0.03
    torch.testing.assert_close(sign.abs(), torch.ones(n))
    turned = hue[:, :3, :3]
    torch.testing.assert_close(turned @ grey, grey.expand(n, 3))
    torch.testing.assert_close(turned @ turned.mT, unit.expand(n, 3, 3), rtol=0, atol=1e-5)
    angle = torch.atan2(turned @ colour @ third, turned @ colour @ colour)
    assert moments(angle) == pytest.approx((0, 2 * math.pi / math.sqrt(12)), abs=0.05)
    mixed = saturation[:, :3, :3]
    torch.testing.assert_close(mixed @ grey, grey.expand(n, 3))
    factor = mixed @ colour @ colour
    torch.testing.assert_close(mixed @ third, factor[:, None] * third, rtol=1e-4, atol=1e-5)
    assert moments(factor.log2()) == pytest.approx((0, 1.0), abs=0.03)


def test_each_change_happens_with_its_probability_and_they_apply_in_order():
    n, p = 20_000, 0.1
    shares = {  # how often a change that happens is none: a mirror half of the time
        "geometry": [0.5, 0.75, 1, 1, None, 1, None, 1],
        "colour": [1, 1, 0.5, 1, 1],
    }
    for kind, seen in shares.items():
        rng = torch.Generator().manual_seed(3)
        steps = augment.colour_steps(n, p, rng)
        if kind == "geometry":
            steps = augment.geometry_steps(n, 256, p, rng)
        product = None
        for step, share in zip(steps, seen, strict=True):
            unit_matrix = torch.eye(step.shape[1])
            changed = (step != unit_matrix).any(2).any(1).float().mean().item()
            expected = 1 - math.sqrt(1 - p) if share is None else p * share
            assert changed == pytest.approx(expected, abs=0.01)
            product = step if product is None else step @ product
        rng = torch.Generator().manual_seed(3)
        if kind == "geometry":
            drawn = augment.draw(n, 256, p, rng).geometry
            torch.testing.assert_close(drawn, product)


def test_grey_images_get_the_mean_of_what_three_channels_would():
    rng = torch.Generator().manual_seed(0)
    drawn = augment.draw(8, 16, 0.8, rng)
    grey = smooth_images(8, 1, 16)
    pipe = augment.Augment()
    expected = pipe(grey.expand(-1, 3, -1, -1), drawn).mean(1, keepdim=True)
    torch.testing.assert_close(pipe(grey, drawn), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="images must have 1 or 3 channels to be augmented, got 2"):
        pipe(torch.zeros(1, 2, 8, 8), unit(1))


def test_the_generator_learns_through_the_augmentation():
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    drawn = augment.draw(2, 8, 1.0, torch.Generator().manual_seed(3))
    drawn = augment.Changes(drawn.geometry.double(), drawn.colour.double())
    assert torch.autograd.gradcheck(lambda x: augment.Augment()(x, drawn), images)


def test_p_follows_the_mean_sign_of_real_scores():
    sure, unsure = torch.ones(8, 1), torch.tensor([[1.0], [-1.0]] * 4)
    control = augment.Controller(0.6, images=320.0, average=lambda tensors: None)
    for _ in range(8):
        control.see(sure, batch=8)
    assert control.p == pytest.approx(8 * 8 / 320)
    assert control.sign == 1
    for _ in range(4):
        control.see(unsure, batch=8)
    assert control.p == pytest.approx(4 * 8 / 320)
    on_target = augment.Controller(0.0, images=320.0, average=lambda tensors: None)
    for _ in range(4):
        on_target.see(unsure, batch=8)
    assert on_target.p == 0
    for _ in range(400):
        control.see(sure, batch=8)
    assert control.p == 1
    for _ in range(800):
        control.see(unsure, batch=8)
    assert control.p == 0


def test_augmentation_reaches_real_and_generated_images_of_all_steps():
    training = start(augment="ada", r1_every=1)
    training.augmentation.p = 1.0
    seen = []
    forward = training.augment.forward

    def record(images, changes):
        seen.append(images.requires_grad)
        return forward(images, changes)

    training.augment.forward = record
    training.step()
    assert seen == [False, False, False, True]  # fake, real, R1's real; the generator's

    # A discriminator that is sure raises p, and a resumed run goes on with it
    training = start(augment="ada", augment_images=160.0)
    with torch.no_grad():
        training.discriminator.final_linear[1].bias.fill_(50.0)
    for _ in range(9):
        training.step()
    assert training.latest()["augment_p"] == pytest.approx(2 * 16 / 160)
    resumed = start(augment="ada", augment_images=160.0)
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    for either in (training, resumed):
        either.step()
    assert_same(training.state_dict(), resumed.state_dict())
