# SPDX-License-Identifier: BSD-3-Clause
"""Draws the pictures of the README and of docs/, each for light and for dark pages.

    python scripts/pictures.py
    python scripts/pictures.py classifier
    python scripts/pictures.py digits --run FOLDER
    python scripts/pictures.py photographs --run FOLDER
    python scripts/pictures.py sticking --run FOLDER

The first command draws those that take seconds, or those of them that are named. The second trains
the classifiers of examples.antialiased_cnn. The third and the fourth take the ``samples.png`` of a
run of examples.stylegan.train, and ``digits`` its ``metrics.jsonl`` too. The last one takes the
``strip.png`` of a run of examples.stylegan.sticking. ``--out`` is the folder of the pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from examples import zone_plate as plate  # noqa: E402
from examples.zone_plate import (  # noqa: E402
    DARK,
    LIGHT,
    NYQUIST,
    PANEL,
    Colours,
    make_figure,
    place_axes,
    save,
    style,
    write,
)
from resample_layers import (  # noqa: E402
    FilteredLeakyReLU,
    UpFirDnDownsample,
    UpFirDnUpsample,
)
from resample_layers.filters import NAMED_TAPS  # noqa: E402

WIDTH = 860  # [pixels] of a page's column
LINES = ("#8c959f", "#d29922", "#2f81f7", "#a371f7", "#2da44e")  # to be told apart on both grounds
DASHES = ("-", (0, (1, 1)), (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1)))


def stride(colours: Colours) -> Figure:
    """A zone plate, halved by stride 2 and by a layer of this package, above the responses."""
    image = plate.zone_plate(plate.SIZE)
    results = (
        ("stride 2", "no filter", (1.0,)),
        ("UpFirDnDownsample", "lanczos3", NAMED_TAPS["lanczos3"]),
    )
    left, gap, top = 8, 38, 22
    figure = make_figure(left + 3 * PANEL + 2 * gap + 14, top + PANEL + 180, colours)
    write(figure, left, top, "an image of all frequencies", 11, colours.ink, "bold")
    write(figure, left, top + 20, "may stay: inside the square", 10, colours.keep)
    plate.show(place_axes(figure, left, top + 28, PANEL, PANEL), image[0, 0])
    lines = (
        "Below both results stand the filters' gains\nat the frequencies of the columns.\n"
        "What is left beyond 1/4 shows as rings\nthat were never in the image: aliases."
    )
    write(figure, left, top + 46 + PANEL, lines, 9, colours.muted, top=True)
    for number, (name, filtered_by, taps) in enumerate(results, 1):
        x = left + number * (PANEL + gap)
        result = plate.measure(image, name, taps)
        write(figure, x, top, name, 11, colours.ink, "bold")
        write(figure, x + PANEL, top, filtered_by, 9.5, colours.muted, right=True)
        plate.panel(figure, x, top + 20, result, colours)
    return figure


def zone_plate(colours: Colours) -> Figure:
    """The picture of ``python -m examples.zone_plate``."""
    image = plate.zone_plate(plate.SIZE)
    results = [plate.measure(image, name, taps) for name, taps in plate.FILTERS]
    return plate.draw(image, results, colours)


def responses(colours: Colours) -> Figure:
    """Gain and step response of five filters for a factor of 2."""
    figure = make_figure(WIDTH, 360, colours)
    gains = place_axes(figure, 62, 40, 340, 250)
    steps = place_axes(figure, 482, 40, 340, 250)
    frequency = torch.linspace(0, 0.5, 513, dtype=torch.float64)
    filters = [(name, taps) for name, taps in plate.FILTERS if len(taps) > 1]
    filters.insert(2, ("cubic", NAMED_TAPS["cubic"]))
    filters = [(f"{name}: {len(taps)} taps", taps) for name, taps in filters]
    for (name, taps), colour, dashes in zip(filters, LINES, DASHES, strict=True):
        level = 20 * plate.gain(taps, frequency).abs().clamp(min=1e-6).log10()
        look = {"color": colour, "linestyle": dashes, "linewidth": 1.7}
        gains.plot(frequency.numpy(), level.numpy(), label=name, **look)
        position, value = step_response(taps)
        steps.plot(position, value, **look)
    gains.axvspan(0, NYQUIST, color=colours.keep, alpha=0.10, linewidth=0)
    gains.set(xlim=(0, 0.5), ylim=(-70, 5), ylabel="gain [dB]")
    gains.set_xlabel("cycles per sample; what lies beyond 1/4 must vanish", fontsize=9)
    gains.set_xticks([0, 0.125, 0.25, 0.375, 0.5], ["0", "1/8", "1/4", "3/8", "1/2"])
    steps.set(xlim=(-6, 6), ylim=(-0.2, 1.2), ylabel="value")
    steps.set_xlabel("samples of the input from the edge", fontsize=9)
    for axes, title in ((gains, "what passes"), (steps, "an edge, doubled: ringing")):
        axes.set_title(title, fontsize=11, fontweight="bold", color=colours.ink, loc="left")
        axes.grid(color=colours.muted, alpha=0.25, linewidth=0.6)
        style(axes, colours)
    key(figure, gains, colours)
    return figure


def key(figure: Figure, axes: Axes, colours: Colours) -> None:
    """What the lines are, along the lower edge."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
        labelcolor=colours.ink,
        handlelength=2.2,
        columnspacing=1.2,
    )


def step_response(taps: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Positions from an edge, in input samples, and the values of the doubled edge there."""
    side = 32
    edge = torch.zeros(1, 1, 1, 2 * side, dtype=torch.float64)
    edge[..., side:] = 1.0
    layer = UpFirDnUpsample([list(taps)], factor=(2, 1), padding_mode="replicate").double()
    shift, _ = layer.shift
    value = layer(edge).flatten()
    position = (torch.arange(len(value)) + 0.5) / 2 - 0.5 + shift
    return (position - (side - 0.5)).numpy(), value.numpy()


def borders(colours: Colours) -> Figure:
    """A part of a photograph, doubled by lanczos3 with each padding mode."""
    from skimage import data

    part = torch.from_numpy(data.astronaut()[0:40, 190:230]).permute(2, 0, 1)[None] / 255.0
    modes = {
        "zeros": "a dark border, and ringing",
        "replicate": "the last sample goes on",
        "reflect": "the image mirrored",
        "circular": "the opposite side",
    }
    side, gap = 200, 18
    figure = make_figure(WIDTH, 262, colours)
    for number, (mode, words) in enumerate(modes.items()):
        x = number * (side + gap) + 2
        doubled = UpFirDnUpsample(NAMED_TAPS["lanczos3"], padding_mode=mode)(part)[0]
        axes = place_axes(figure, x, 52, side, side)
        axes.imshow(doubled.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_axis_off()
        write(figure, x, 20, repr(mode), 11, colours.ink, "bold")
        write(figure, x, 40, words, 9.5, colours.muted)
    return figure


def positions(colours: Colours) -> Figure:
    """Where the samples of four layers lie, by their property ``shift``."""
    layers = {
        "up 2, [1, 3, 3, 1]": UpFirDnUpsample((1, 3, 3, 1)),
        "up 2, [1, 2, 1]": UpFirDnUpsample((1, 2, 1)),
        "down 2, [1, 3, 3, 1]": UpFirDnDownsample((1, 3, 3, 1)),
        "down 2, [1, 2, 1]": UpFirDnDownsample((1, 2, 1)),
    }
    count, left, right = 8, 170, 100
    figure = make_figure(WIDTH, 270, colours)
    axes = place_axes(figure, left, 44, WIDTH - left - right, 216)
    write(figure, left, 24, "input pixels and their centres", 10, colours.muted)
    write(figure, left + 220, 24, "samples of the output", 10, colours.keep)
    write(figure, left + 400, 24, "moved", 10, colours.vanish)
    for row, (name, layer) in enumerate(layers.items()):
        up, down, shift = layer.up[0], layer.down[0], layer.shift[0]
        for pixel in range(count):
            axes.plot([pixel - 0.5, pixel + 0.5], [row, row], color=colours.muted, lw=0.8)
            axes.plot([pixel - 0.5] * 2, [row - 0.28, row + 0.28], color=colours.muted, lw=0.8)
            axes.plot(pixel, row, marker="o", ms=9, mfc="none", mec=colours.muted, lw=0)
        axes.plot([count - 0.5] * 2, [row - 0.28, row + 0.28], color=colours.muted, lw=0.8)
        place = (np.arange(count * up // down) + 0.5) * down / up - 0.5 + shift
        colour = colours.keep if shift == 0 else colours.vanish
        axes.plot(place, [row] * len(place), marker="o", ms=5, color=colour, lw=0)
        y = 44 + round((row + 0.5) * 216 / len(layers)) + 4
        write(figure, 8, y, name, 10, colours.ink, "bold")
        write(figure, WIDTH - right + 10, y, f"shift {shift:g}", 10, colour)
    axes.set(xlim=(-0.9, count - 0.1), ylim=(len(layers) - 0.5, -0.5))
    axes.set_axis_off()
    return figure


def alias_free(colours: Colours) -> Figure:
    """The spectrum of a tone after a leaky ReLU, without and with filters around it."""
    figure = make_figure(WIDTH, 340, colours)
    length, tone = 256, 72
    wave = torch.cos(2 * math.pi * tone / length * torch.arange(5 * length, dtype=torch.float64))
    image = wave.expand(1, 1, 64, -1)
    band = {"in_cutoff": 0.4, "in_half_width": 0.1, "out_cutoff": 0.4, "out_half_width": 0.1}
    layer = FilteredLeakyReLU(1, bias=False, filter_size=12, **band).double()
    results = {
        "leaky ReLU": F.leaky_relu(image, 0.2) * math.sqrt(2.0),
        "FilteredLeakyReLU": layer(image),
    }
    for number, (name, result) in enumerate(results.items()):
        axes = place_axes(figure, 62 + number * 420, 40, 340, 230)
        middle = result[0, 0, 32, 2 * length : 3 * length]
        level = 20 * (torch.fft.rfft(middle).abs() / (length / 2)).clamp(min=1e-5).log10()
        bins = np.arange(len(level))
        for position, decibel in zip(bins, level.tolist(), strict=True):
            colour = colours.keep if position in (0, tone) else colours.vanish
            axes.plot([position / length] * 2, [-100, decibel], color=colour, linewidth=1.6)
        axes.set(xlim=(-0.01, 0.51), ylim=(-80, 5), ylabel="level [dB]")
        axes.set_xlabel("cycles per sample", fontsize=9)
        axes.set_title(name, fontsize=11, fontweight="bold", color=colours.ink, loc="left")
        style(axes, colours)
    words = "the tone and the mean"
    write(figure, 62, 328, words, 9.5, colours.keep)
    write(figure, 62 + 180, 328, "harmonics that do not fit and fold back", 9.5, colours.vanish)
    return figure


# Pictures of networks that were trained


def trained_classifiers(seeds: int = 5) -> dict[str, list[float]]:
    """Of each kind, the share that keeps its class after 0 to 4 pixels, mean over seeds."""
    from examples import antialiased_cnn as cnn

    torch.set_num_threads(1)
    images, labels, test_images, _ = cnn.load_images()
    kinds = {"strided convolution": None, "UpFirDnDownsample": NAMED_TAPS["binomial4"]}
    shares: dict[str, list[float]] = {}
    for name, taps in kinds.items():
        rows = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            network = cnn.make_network(taps)
            cnn.train(network, images, labels, epochs=10)
            rows.append([100.0, *cnn.stability(network, test_images)])
        shares[name] = np.mean(rows, axis=0).tolist()
    return shares


def classifier(colours: Colours, shares: dict[str, list[float]]) -> Figure:
    """A digit that moves, and how many keep their class."""
    from examples import antialiased_cnn as cnn

    figure = make_figure(WIDTH, 290, colours)
    digit = cnn.load_images()[2][3:4]
    side = 128
    write(figure, 0, 20, "a digit that is moved to the right", 11, colours.ink, "bold")
    for pixels in range(3):
        axes = place_axes(figure, pixels * (side + 10), 76, side, side)
        moved = torch.roll(digit, 2 * pixels, dims=3)[0, 0]
        axes.imshow(moved.numpy(), cmap="gray", interpolation="nearest")
        axes.set_axis_off()
        write(figure, pixels * (side + 10), 66, f"{2 * pixels} pixels", 9.5, colours.muted)
    axes = place_axes(figure, 480, 12, 360, 222)
    looks = ((colours.vanish, -18), (colours.keep, 8))
    for (name, values), (colour, above) in zip(shares.items(), looks, strict=True):
        axes.plot(values, color=colour, linewidth=2, marker="o", markersize=5)
        axes.annotate(
            name,
            (2, values[2]),
            xytext=(0, above),
            textcoords="offset points",
            color=colour,
            fontsize=9.5,
            ha="center",
        )
    axes.set(xlim=(-0.2, 4.2), ylim=(0, 112), xticks=range(5), yticks=[0, 25, 50, 75, 100])
    axes.set_ylabel("digits that keep their class [%]", fontsize=9)
    axes.set_xlabel("moved by [pixels]", fontsize=9)
    axes.grid(color=colours.muted, alpha=0.25, linewidth=0.6)
    style(axes, colours)
    return figure


def digits(colours: Colours, run: Path) -> Figure:
    """Digits that the demo makes beside real ones, and its losses, smoothed."""
    from examples.stylegan.data import load_digits

    figure = make_figure(WIDTH, 620, colours)
    beside(figure, run / "samples.png", load_digits(32).train[:64], 8, 3, colours)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    axes = place_axes(figure, 56, 490, WIDTH - 80, 90)
    for name, words, colour in (
        ("d_loss", "the discriminator's loss", colours.vanish),
        ("g_loss", "the generator's loss", colours.keep),
    ):
        points = [(line["step"], line[name]) for line in lines if name in line]
        step, loss = map(np.array, zip(*points, strict=True))
        axes.plot(step, smooth(loss), color=colour, linewidth=1.7, label=words)
    axes.set_xlabel("step; each point is the mean of a twentieth of the run", fontsize=9)
    axes.set_xlim(0, None)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=colours.ink, ncols=2, loc="upper right")
    axes.margins(y=0.45)
    style(axes, colours)
    return figure


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a twentieth of them around each; fewer at the ends."""
    half = max(len(values) // 40, 1)
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def photographs(colours: Colours, run: Path) -> Figure:
    """Crops that the run makes beside crops that it learned from."""
    from examples.stylegan.data import load_photographs

    figure = make_figure(WIDTH, 440, colours)
    beside(figure, run / "samples.png", load_photographs(64).train[:64], 6, 2, colours)
    return figure


def sticking(colours: Colours, run: Path) -> Figure:
    """Digits that a StyleGAN3 and a StyleGAN2 draw farther and farther to the right."""
    from examples.stylegan.sticking import ENLARGED, SHIFTS

    with Image.open(run / "strip.png") as image:
        strip = np.asarray(image.convert("RGB"))
    rows = ("StyleGAN3-T", "its difference", "StyleGAN2", "its difference")
    cell, digits = 32 * ENLARGED, 3
    shape = (len(rows) * cell, digits * SHIFTS * cell)
    if strip.shape[:2] != shape:
        raise ValueError(f"{run / 'strip.png'} must be {shape}, got {strip.shape[:2]}")
    gap, top = 12, 46
    side = 3 * cell // (2 * plate.DENSITY)  # a pixel of a network is 3 x 3 pixels of the file
    left = WIDTH - digits * SHIFTS * side - (digits - 1) * gap
    figure = make_figure(WIDTH, top + 2 * (2 * side + gap), colours)
    write(figure, 0, top - 14, "moved [pixels]", 9.5, colours.muted)
    for row, words in enumerate(rows):
        y = top + row * side + (row // 2) * gap
        look = (10.0, colours.ink, "bold") if row % 2 == 0 else (9.5, colours.muted)
        write(figure, 0, y + side // 2 + 4, words, *look)
        for digit in range(digits):
            x = left + digit * (SHIFTS * side + gap)
            start = digit * SHIFTS * cell
            part = strip[row * cell : (row + 1) * cell, start : start + SHIFTS * cell]
            axes = place_axes(figure, x, y, SHIFTS * side, side)
            axes.imshow(part, interpolation="nearest")
            axes.set_axis_off()
            for pixels in range(SHIFTS if row == 0 else 0):
                place = x + pixels * side + side // 2 - 3
                write(figure, place, top - 14, str(pixels), 9.5, colours.muted)
    return figure


def beside(
    figure: Figure, samples: Path, real: Tensor, count: int, scale: int, colours: Colours
) -> None:
    """Of a run's grid of 8 x 8 samples and of 64 real images, ``count`` x ``count`` each.

    A pixel of theirs is ``scale`` x ``scale`` pixels of the file.
    """
    with Image.open(samples) as image:
        generated = np.asarray(image.convert("RGB"))
    rows = [torch.cat([F.pad(image, (2, 0, 2, 0)) for image in row], 2) for row in real.split(8)]
    grid = F.pad(torch.cat(rows, 1), (0, 2, 0, 2)).expand(3, -1, -1).permute(1, 2, 0).numpy()
    if generated.shape != grid.shape:
        raise ValueError(f"{samples} must be a picture of {grid.shape}, got {generated.shape}")
    end = count * (real.shape[-1] + 2) + 2
    side = end * scale // plate.DENSITY
    for x, name, picture in (
        (0, "generated", generated),
        (WIDTH - side, "real, to learn from", grid),
    ):
        write(figure, x, 20, name, 11, colours.ink, "bold")
        axes = place_axes(figure, x, 32, side, side)
        axes.imshow(picture[:end, :end], interpolation="nearest")
        axes.set_axis_off()


QUICK: tuple[Callable[[Colours], Figure], ...] = (
    stride,
    zone_plate,
    responses,
    borders,
    positions,
    alias_free,
)
OF_RUNS: tuple[Callable[[Colours, Path], Figure], ...] = (digits, photographs, sticking)


def main() -> None:
    quick = {draw.__name__: draw for draw in QUICK}
    of_runs = {draw.__name__: draw for draw in OF_RUNS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of pictures; none: those that take seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument(
        "--run", type=Path, help="folder of a run, for digits, photographs and sticking"
    )
    args = parser.parse_args()
    names = args.names or list(quick)
    known = [*quick, *of_runs, "classifier"]
    for name in names:
        if name not in known:
            parser.error(f"a picture must be one of {', '.join(known)}, got {name}")
        if name in of_runs and args.run is None:
            parser.error(f"{name} must have the folder of a run, --run FOLDER")
    for name in names:
        shares = trained_classifiers() if name == "classifier" else {}
        for mode, colours in (("light", LIGHT), ("dark", DARK)):
            if name in quick:
                figure = quick[name](colours)
            elif name in of_runs:
                figure = of_runs[name](colours, args.run)
            else:
                figure = classifier(colours, shares)
            path = args.out / f"{name}-{mode}.png"
            save(figure, path)
            print(path)


if __name__ == "__main__":
    main()
