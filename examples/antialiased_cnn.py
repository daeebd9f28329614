# SPDX-License-Identifier: BSD-3-Clause
"""Does a classifier say the same of an image that has moved? Strided and filtered, measured.

The same small network twice, with the same parameters and the same initial values:

- strided: ``Conv2d(stride=2), BatchNorm2d, ReLU``, twice
- filtered: ``Conv2d(stride=1), BatchNorm2d, ReLU, UpFirDnDownsample``, twice

and then, in both, a convolution on the quarter-size image, the mean over all places, and a linear
layer. A convolution of stride 2 is one of stride 1 of which every second sample is kept: the
networks differ in that the second filters before it drops samples, and in what follows from it,
batch statistics over all samples and a wider receptive field.

1. Take the 1,797 handwritten digits of scikit-learn, enlarge them from 8 to 16 pixels with
   UpFirDnUpsample, and centre them on a canvas of 24 pixels.
2. Train both networks on centred digits only, for several seeds (initial values, order of the
   images). Nothing in the training asks for stability under shifts.
3. On held-out digits, measure the accuracy where they stand and where they are shifted at random
   by up to 4 pixels on both axes (the digit stays on the canvas whole), the consistency (share of
   pairs of random shifts of one digit that get the same class, right or wrong), and how much the
   logits change between the two. Then the share that keeps its class as it moves to the right:
   after 4 pixels the samples of both networks fall on the same places of the digit again.

Run: ``python -m examples.antialiased_cnn``

Source of the idea and of the measure: Zhang, Making convolutional networks shift-invariant again,
2019.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

from resample_layers import UpFirDnDownsample, UpFirDnUpsample
from resample_layers.filters import NAMED_TAPS

MARGIN = 4  # [pixels] around the digit; the largest shift
CHANNELS = (1, 16, 32, 64)  # of the image, and after each convolution


def load_images(test_share: float = 1 / 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images [N, 1, 24, 24], their labels [N], test images and labels; always the same."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16.0
    images = F.pad(UpFirDnUpsample((1, 3, 3, 1), factor=2)(images), (MARGIN,) * 4)
    labels = torch.from_numpy(digits.target)
    train, test = train_test_split(
        range(len(labels)), test_size=test_share, stratify=digits.target, random_state=0
    )
    return images[train], labels[train], images[test], labels[test]


def make_network(taps: Sequence[float] | None) -> nn.Sequential:
    """The classifier: halves by strided convolutions, or by a filter if there are taps."""
    *halving, last = itertools.pairwise(CHANNELS)
    layers: list[nn.Module] = []
    for inputs, outputs in halving:
        layers += convolution(inputs, outputs, stride=2 if taps is None else 1)
        if taps is not None:
            layers.append(UpFirDnDownsample(taps, factor=2))
    layers += convolution(*last, stride=1)
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], 10)
    )


def convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int, batch: int = 64) -> None:
    """Adam, the learning rate falling to zero along a cosine."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    steps = epochs * -(-len(labels) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()


def shift(images: Tensor, by: Tensor) -> Tensor:
    """Each image [1, H, W] moved by its own number of pixels (x, y) in ``by`` [N, 2]."""
    moves = zip(images, by.tolist(), strict=True)
    return torch.stack([torch.roll(image, (y, x), dims=(1, 2)) for image, (x, y) in moves])


class Scores(NamedTuple):
    """What is measured, in percent."""

    accuracy: float  # of centred digits
    shifted: float  # accuracy of shifted digits
    consistency: float  # share of pairs of shifts with the same class
    change: float  # of the logits between such a pair, relative to their norm


@torch.no_grad()
def measure(network: nn.Module, images: Tensor, labels: Tensor, pairs: int, seed: int) -> Scores:
    """Scores on held-out images, over ``pairs`` pairs of random shifts of each."""
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    size = (len(images), 2)
    right = same = change = norm = 0.0
    for _ in range(pairs):
        one, two = (
            network(shift(images, torch.randint(-MARGIN, MARGIN + 1, size, generator=generator)))
            for _ in range(2)
        )
        right += ((one.argmax(1) == labels).sum() + (two.argmax(1) == labels).sum()).item() / 2
        same += (one.argmax(1) == two.argmax(1)).sum().item()
        change += (one - two).norm(dim=1).sum().item()
        norm += (one.norm(dim=1) + two.norm(dim=1)).sum().item() / 2
    count = pairs * len(images)
    accuracy = (network(images).argmax(1) == labels).float().mean().item()
    return Scores(100 * accuracy, 100 * right / count, 100 * same / count, 100 * change / norm)


@torch.no_grad()
def stability(network: nn.Module, images: Tensor) -> list[float]:
    """Share of images, in percent, that keep their class when moved right by 1 to 4 pixels."""
    network.eval()
    classes = network(images).argmax(1)
    moved = (torch.roll(images, pixels, dims=3) for pixels in range(1, MARGIN + 1))
    return [100 * (network(x).argmax(1) == classes).float().mean().item() for x in moved]


def table(titles: Sequence[str], rows: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Mean ± standard deviation over seeds; ``rows[name][seed]`` has a value for each title."""
    lines = [f"{'network':<22}" + "".join(f"{title:>15}" for title in titles)]
    for name, values in rows.items():
        columns = torch.tensor(values).T
        cells = (f"{column.mean():.1f} ± {column.std(correction=0):.1f}" for column in columns)
        lines.append(f"{name:<22}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="networks of each kind [%(default)s]")
    parser.add_argument("--epochs", type=int, default=10, help="of training [%(default)s]")
    parser.add_argument(
        "--pairs", type=int, default=8, help="of random shifts for each test image [%(default)s]"
    )
    parser.add_argument(
        "--taps",
        choices=sorted(NAMED_TAPS),
        default="binomial4",
        help="the filter of UpFirDnDownsample [%(default)s, which is 1, 3, 3, 1]",
    )
    args = parser.parse_args()
    if min(args.seeds, args.epochs, args.pairs) < 1:
        parser.error("--seeds, --epochs and --pairs must be >= 1")

    torch.set_num_threads(1)  # enough for small batches; the same numbers on any count of cores
    images, labels, test_images, test_labels = load_images()
    kinds = {"strided convolution": None, "UpFirDnDownsample": NAMED_TAPS[args.taps]}
    scores: dict[str, list[Scores]] = {name: [] for name in kinds}
    moved: dict[str, list[list[float]]] = {name: [] for name in kinds}
    with tqdm(total=args.seeds * len(kinds), desc="networks", leave=False) as progress:
        for seed in range(args.seeds):
            for name, taps in kinds.items():
                torch.manual_seed(seed)
                network = make_network(taps)
                train(network, images, labels, args.epochs)
                scores[name].append(measure(network, test_images, test_labels, args.pairs, seed))
                moved[name].append(stability(network, test_images))
                progress.update()

    print(
        f"{len(labels)} digits to train, {len(test_labels)} to test, {args.epochs} epochs, "
        f"{sum(p.numel() for p in network.parameters())} parameters each; taps {args.taps}.\n"
        f"Percent, mean ± standard deviation over {args.seeds} seed(s).\n"
    )
    print(table(("accuracy", "shifted", "consistency", "logit change"), scores))
    print("\nKeeps its class when moved to the right by\n")
    print(table([f"{pixels} px" for pixels in range(1, MARGIN + 1)], moved))
    strided, filtered = (torch.tensor(rows)[:, 2] for rows in scores.values())
    gain = filtered - strided
    print(
        f"\nConsistency with the filter minus without, seed by seed: {gain.mean():+.1f} points on "
        f"average, {gain.min():+.1f} to {gain.max():+.1f}; "
        f"higher in {int((gain > 0).sum())} of {args.seeds}."
    )


if __name__ == "__main__":
    main()
