# SPDX-License-Identifier: BSD-3-Clause
"""How good the samples are, in numbers that need no network from elsewhere.

1. *Fréchet distance* between the pixels of samples and of held-out images, and, where Inception's
   weights are at hand, between their features (FID), by torch-fidelity.
2. *Verdict of a classifier* that learned the real digits: how often it is sure, and of what.
3. *Distance to the nearest training image*: samples that copy would be nearer than held-out
   images are.

Each stands beside the same for the untrained generator and for real images. Pixels are those of
images reduced to 64 pixels a side, where they are larger.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .data import Files, Images, to_bytes, to_pixels
from .device import is_out_of_memory
from .generator import Generator

CONFIDENT = 0.9
COLUMNS = ("samples", "untrained", "real")
LARGEST_SIDE = 64  # of what pixel distances compare; larger images are reduced
MOST_TRAIN = 10_000  # training images to compare with
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity names it


@torch.no_grad()
def generate(generator: Generator, count: int, seed: int, batch: int | None = None) -> Tensor:
    """Samples as bytes [count, C, H, W] on the CPU; the training's random numbers stay as is."""
    device = generator.device
    if batch is None:  # as memory allows: 100 images of 32 pixels, 1 of 1024
        batch = min(max(100 * 32**2 // generator.resolution**2, 1), 100)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        samples = [
            to_bytes(generator(torch.randn(size, generator.style_dim).to(device))).cpu()
            for size in (min(batch, count - first) for first in range(0, count, batch))
        ]
    return torch.cat(samples)


def frechet_distance(
    a: Tensor,  # [n, d]
    b: Tensor,  # [m, d]
) -> float:
    """The Fréchet distance of the normal distributions with the samples' means and covariances.

    ``|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr sqrt(A B)``. With the centred samples as columns
    of ``X`` and ``Y``, ``A = X X^T / (n - 1)`` and ``B = Y Y^T / (m - 1)``, and ``A B`` has the
    eigenvalues of ``(X^T Y)(X^T Y)^T / ((n - 1)(m - 1))``; so the last trace is the sum of the
    singular values of ``X^T Y / sqrt((n - 1)(m - 1))``, an n by m matrix, whatever d is.

    Source of the formula: Dowson and Landau, 1982; as in Heusel et al., 2017, who apply it to
    features where this applies it to pixels.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a and b must hold two samples or more, got {len(a)} and {len(b)}")
    a, b = a.to(torch.float64), b.to(torch.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    x = (a - mean_a) / (len(a) - 1) ** 0.5
    y = (b - mean_b) / (len(b) - 1) ** 0.5
    shared = torch.linalg.svdvals(x @ y.T).sum()
    distance = (mean_a - mean_b).square().sum() + x.square().sum() + y.square().sum() - 2 * shared
    return max(0.0, float(distance))


def nearest_distance(
    a: Tensor,  # [n, d]
    b: Tensor,  # [m, d]
) -> float:
    """The Euclidean distance from a sample of ``a`` to the nearest of ``b``, averaged."""
    return float(torch.cdist(a, b).min(1).values.mean())


def find_inception() -> Path | None:
    """Inception's weights where torch-fidelity keeps them, or None; nothing is downloaded.

    A file that cannot be read, or lies in a folder that cannot be read, counts as absent.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION)
    return path if os.path.isfile(path) and os.access(path, os.R_OK) else None


def check_inception(weights: Path) -> None:
    """Raise a ValueError if these are no weights; nothing in the file is executed."""
    cause = None
    try:
        state = torch.load(weights, weights_only=True)
        reason = None if isinstance(state, dict) and state else "it holds no dict of tensors"
    except OSError as error:
        reason, cause = error.strerror or str(error), error
    except Exception as error:  # of many types, and torch's advice is to execute what is in a file
        if is_out_of_memory(error):
            raise
        reason, cause = "it is damaged, or not a file of tensors that torch.save wrote", error
    if reason is not None:
        raise ValueError(
            f"inception must be weights that torch-fidelity reads, got {str(weights)!r}: {reason}"
        ) from cause


class _Pictures(Dataset[Tensor]):
    """The first pictures, bytes [C, H, W], as torch-fidelity takes them: one at a time, RGB."""

    def __init__(self, images: Tensor | Files, count: int) -> None:
        self.images, self.count = images, min(count, len(images))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


def inception_distances(
    pictures: dict[str, Tensor],  # by name, [n, C, H, W], uint8, C 1 or 3
    train: Tensor | Files,  # [m, C, H, W], uint8
    weights: Path,  # of Inception, as torch-fidelity has them
    device: torch.device,
    batch: int = 32,
) -> dict[str, float]:
    """The Fréchet inception distance (FID) of each to the training images, 10,000 at most.

    Source: Heusel et al., 2017; by torch-fidelity.

    Raises:
        ModuleNotFoundError: without torch-fidelity.
        ValueError: if the weights cannot be read.
    """
    import torch_fidelity

    check_inception(weights)  # torch-fidelity would execute what is in the file
    distances = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, images in pictures.items():
            metrics = torch_fidelity.calculate_metrics(
                input1=_Pictures(images, len(images)),
                input2=_Pictures(train, MOST_TRAIN),
                fid=True,
                feature_extractor_weights_path=str(weights),
                batch_size=batch,
                cuda=device.type == "cuda",
                cache_root=folder,
                input2_cache_name="train",  # torch-fidelity computes the features of this name once
                save_cpu_ram=True,  # starts no processes, which images in memory do not need
                verbose=False,
            )
            distances[name] = float(metrics["frechet_inception_distance"])
    return distances


def _vectors(images: Tensor | Files, count: int | None = None) -> Tensor:
    """The first bytes [C, H, W] as numbers in [-1, 1], [n, C * h * w], of 64 pixels at most."""
    count = len(images) if count is None else min(count, len(images))
    vectors = []
    for index in range(count):
        pixels = to_pixels(images[index])
        factor = pixels.shape[-1] // LARGEST_SIDE
        vectors.append((F.avg_pool2d(pixels, factor) if factor > 1 else pixels).flatten())
    return torch.stack(vectors)


def evaluate(
    generator: Generator,
    untrained: Generator,
    images: Images,
    samples: int = 1000,
    seed: int = 0,
    inception: Path | None = None,
) -> dict[str, Any]:
    """All figures, by row and column of the table; see the module's docstring.

    Real against real is as many training images against the held-out ones. FID is taken to the
    training images, 10,000 at most, where papers take all, and only with ``inception``, its
    weights.
    """
    # What is compared: [n, C, H, W] as bytes, and as vectors
    pictures = {
        "samples": generate(generator, samples, seed),
        "untrained": generate(untrained, samples, seed),
        "real": images.held_out,
    }
    train = _vectors(images.train, MOST_TRAIN)
    columns = {name: _vectors(x) for name, x in pictures.items()}
    held_out = columns["real"]
    report: dict[str, Any] = {
        "data": images.name,
        "counts": {"samples": samples, "train": len(train), "held_out": len(held_out)},
        "frechet_distance": {
            "samples": frechet_distance(columns["samples"], held_out),
            "untrained": frechet_distance(columns["untrained"], held_out),
            "real": frechet_distance(train[:samples], held_out),
        },
        "nearest_distance": {name: nearest_distance(x, train) for name, x in columns.items()},
        "inception_distance": None,
    }
    if inception is not None:
        device = generator.device
        distances = inception_distances(pictures, images.train, inception, device)
        report["inception_distance"] = distances
    if images.train_labels is None or images.held_out_labels is None:
        report["classifier"] = None
        return report

    # Verdict of a classifier
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    classifier = MLPClassifier((64,), max_iter=1000, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):  # the same on any number of cores
        # scikit-learn answers Ctrl-C with a warning and a classifier that has learned half
        warnings.filterwarnings("error", "Training interrupted")
        try:
            classifier.fit(train.numpy(), images.train_labels.numpy())
        except UserWarning as warning:
            raise KeyboardInterrupt from warning
    correct = classifier.predict(held_out.numpy()) == images.held_out_labels.numpy()
    report["classifier"] = {
        "name": "scikit-learn's MLPClassifier, one hidden layer of 64",
        "held_out_accuracy": float(correct.mean()),
    }
    report["confident"], report["class_share"] = {}, {}
    for name, x in columns.items():
        probability = classifier.predict_proba(x.numpy())  # [n, classes]
        report["confident"][name] = float((probability.max(1) >= CONFIDENT).mean())
        counts = np.bincount(probability.argmax(1), minlength=probability.shape[1])
        report["class_share"][name] = (counts / len(x)).tolist()
    return report


def format_report(report: dict[str, Any]) -> str:
    """The figures as a table."""
    rows: list[tuple[str, dict[str, str]]] = []

    def add(title: str, values: dict[str, float], form: str) -> None:
        rows.append((title, {name: form.format(values[name]) for name in COLUMNS}))

    add("Fréchet distance to held-out images", report["frechet_distance"], "{:.2f}")
    if report["inception_distance"]:
        add("FID to training images", report["inception_distance"], "{:.2f}")
    add("distance to nearest training image", report["nearest_distance"], "{:.2f}")
    if report["classifier"]:
        add(f"classified with p >= {CONFIDENT}", report["confident"], "{:.1%}")
        for digit in range(len(report["class_share"]["samples"])):
            shares = {name: report["class_share"][name][digit] for name in COLUMNS}
            add(f"classified as {digit}", shares, "{:.1%}")

    width = max(len(title) for title, _ in rows)
    lines = [" " * width + "".join(f"{name:>12}" for name in COLUMNS)]
    lines += [f"{title:<{width}}" + "".join(f"{v:>12}" for v in vs.values()) for title, vs in rows]
    counts = report["counts"]
    lines += [
        "",
        f"samples: {counts['samples']:,} of the averaged generator, without truncation",
        f"real: {counts['held_out']:,} held-out images; for the Fréchet distance "
        f"{min(counts['samples'], counts['train']):,} training images against them",
    ]
    if report["inception_distance"] is None:
        lines.append("FID: left out, Inception's weights are not at hand (--inception FILE)")
    if "training" in report:
        t = report["training"]
        names = {"r1_steps": "R1", "path_length_steps": "path length"}
        penalties = [f"{name} stepped {t[k]:,} times" for k, name in names.items() if t[k]]
        lines.append(
            f"training: {t['steps']:,} steps, {t['images']:,} images"
            + (f"; {', '.join(penalties)}" if penalties else "")
        )
    if report["classifier"]:
        name, accuracy = report["classifier"]["name"], report["classifier"]["held_out_accuracy"]
        lines.append(f"classifier: {name}, right on {accuracy:.1%} of the held-out images")
    else:
        lines.append("classifier: left out, since these images have no classes")
    return "\n".join(lines)
