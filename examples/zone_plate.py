# SPDX-License-Identifier: BSD-3-Clause
"""A picture of aliasing: what stride 2 does to a zone plate, and UpFirDnDownsample does not.

A zone plate holds every frequency once, each at its own place: ``cos(pi * (x^2 + y^2) / size)``
turns ``x / size`` times a pixel along x at the point ``(x, y)``, nothing in the middle, every
second pixel at the border. So a picture of the plate *is* a frequency response: its brightness at
``(x, y)`` is the gain at the frequency ``(x, y) / size``. After halving, a frequency above 1/4 of
the old sampling rate has no place of its own; what is left of it shows as one that was never
there.

1. Halve the plate with stride 2 and with several filters.
2. Measure the energy left where it may be, and where nothing may be left, and hold both against
   what the frequency response predicts. (The plate continues periodically without a seam, so the
   layers run with ``padding_mode="circular"`` and no border disturbs the measurement.)
3. Draw the results above the frequency responses.

Run: ``python -m examples.zone_plate --out zone_plate.png``
"""

from __future__ import annotations

if not __package__:  # the imports below would fail without saying why
    raise SystemExit(
        "zone_plate.py must be run as a module, from the root of the clone: "
        "python -m examples.zone_plate"
    )

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from resample_layers import UpFirDnDownsample
from resample_layers.filters import NAMED_TAPS, kaiser_beta, kaiser_lowpass

from .stylegan.console import Parser, ending_without_output
from .stylegan.files import explain_write, say, whole, writable

SIZE = 256  # [pixels] of the plate, shown one to one
NYQUIST = 0.25  # [cycles per pixel of the plate] of the halved picture

# A low-pass whose stop band begins at NYQUIST: 32 taps at 50 dB fall off within 0.2 of the plate's
# Nyquist frequency, half of that on each side of the cutoff, hence 0.4 in its units.
DESIGNED = kaiser_lowpass(32, cutoff=0.4, beta=kaiser_beta(50.0))

FILTERS: tuple[tuple[str, Sequence[float]], ...] = (
    ("stride 2, no filter", (1.0,)),
    ("average of 2 x 2", (1.0, 1.0)),
    ("[1, 3, 3, 1]", (1.0, 3.0, 3.0, 1.0)),
    ("lanczos3", NAMED_TAPS["lanczos3"]),
    ("designed low-pass", DESIGNED),
)


def zone_plate(size: int) -> Tensor:
    """The plate [1, 1, size, size], values in [-1, 1]; with an even size it tiles seamlessly."""
    x = torch.arange(size, dtype=torch.float64) - size // 2
    return torch.cos(math.pi * (x[:, None] ** 2 + x**2) / size)[None, None].float()


def halve(plate: Tensor, taps: Sequence[float]) -> Tensor:
    """The plate at half its size: by stride 2 for one tap, by UpFirDnDownsample for more."""
    if len(taps) == 1:
        return plate[..., ::2, ::2]
    return UpFirDnDownsample(taps, factor=2, padding_mode="circular")(plate)


def gain(taps: Sequence[float], frequency: Tensor) -> Tensor:
    """Amplitude response of symmetric taps at frequencies in cycles per sample."""
    h = torch.tensor(taps, dtype=torch.float64)
    offset = torch.arange(len(h)) - (len(h) - 1) / 2
    return (h * torch.cos(2 * math.pi * frequency[:, None] * offset)).sum(1) / h.sum()


class Result(NamedTuple):
    """One way to halve the plate; energies in percent of the plate's."""

    name: str
    taps: Sequence[float]
    picture: Tensor  # [size / 2, size / 2]
    kept: float  # where frequencies may stay
    kept_predicted: float
    aliased: float  # where nothing may be left
    aliased_predicted: float


def measure(plate: Tensor, name: str, taps: Sequence[float]) -> Result:
    """Halve the plate and compare what is left with what the frequency response predicts."""
    size = plate.shape[-1]
    picture = halve(plate, taps)[0, 0]
    # Where samples of half the size lie on the plate; stride 2 is the layer with one tap
    shift, _ = UpFirDnDownsample(taps, factor=2).shift
    place = (torch.arange(size // 2, dtype=torch.float64) + 0.5) * 2 - 0.5 + shift
    frequency = place / size - 0.5
    low = frequency.abs() < NYQUIST
    inside = low[:, None] & low
    power = torch.outer(gain(taps, frequency), gain(taps, frequency)) ** 2
    found = picture.double() ** 2 / plate.double().square().mean()
    energies = [
        100.0 * values[where].mean().item()
        for where in (inside, ~inside)
        for values in (found, power)
    ]
    return Result(name, taps, picture, *energies)


# The drawing


class Colours(NamedTuple):
    """What a picture is drawn in."""

    ground: str
    ink: str
    muted: str
    keep: str
    vanish: str


LIGHT = Colours("#ffffff", "#22272e", "#6b7280", "#12805c", "#c2372e")
DARK = Colours("#0d1117", "#e6edf3", "#9198a1", "#3fb98a", "#ff7b72")

PANEL, LEFT, GAP, TOP = SIZE, 46, 40, 106  # [pixels]
TITLE, BELOW, CURVE, ROW = 46, 10, 92, 452
WIDTH, HEIGHT = LEFT + 3 * PANEL + 2 * GAP + 22, TOP + 2 * ROW
DPI = 100  # of the pixels in which lengths are given
DENSITY = 2  # pixels of the file for each of them: what screens show sharply


def draw(plate: Tensor, results: Sequence[Result], colours: Colours = LIGHT) -> Figure:
    """The plate and the results, each above its frequency response, pixel by pixel."""
    figure = make_figure(WIDTH, HEIGHT, colours)
    ink, muted = colours.ink, colours.muted
    title = "Halving an image: what must vanish, and what is left of it"
    write(figure, LEFT, 34, title, 15, ink, "bold")
    write(
        figure,
        LEFT,
        58,
        "A zone plate holds every frequency at its own place. After halving, the outer part must be"
        " flat grey;\nevery ring that shows there is an alias, a pattern that was never there.",
        9.5,
        muted,
        top=True,
    )
    panels = [
        (LEFT + column * (PANEL + GAP), TOP + row * ROW) for row in (0, 1) for column in range(3)
    ]

    # The plate and how to read it
    x, y = panels[0]
    write(figure, x, y + 38, f"the zone plate, {SIZE} x {SIZE}", 11, ink, "bold")
    show(place_axes(figure, x, y + TITLE, PANEL, PANEL), plate[0, 0])
    below = y + TITLE + PANEL + BELOW
    write(figure, x, below + 4, "inside the dashed square: may stay", 9.5, colours.keep, top=True)
    write(figure, x, below + 22, "outside: must vanish", 9.5, colours.vanish, top=True)
    write(
        figure,
        x,
        below + 46,
        "A column of a picture is one frequency;\nthe curve below it is the filter's gain there.\n"
        "Percentages are energies, measured.",
        9.5,
        muted,
        top=True,
    )

    for (x, y), result in zip(panels[1:], results, strict=True):
        taps = f"{len(result.taps)} tap{'s' if len(result.taps) > 1 else ''}"
        write(figure, x, y + 18, result.name, 11, ink, "bold")
        write(figure, x + PANEL, y + 18, taps, 9.5, muted, right=True)
        panel(figure, x, y + 38, result, colours)
    return figure


def panel(figure: Figure, x: int, y: int, result: Result, colours: Colours) -> None:
    """The energies, with their baseline at ``y``; below them the picture and the response."""
    aliased = f"{result.aliased:.0f}" if result.aliased >= 10 else f"{result.aliased:.2g}"
    write(figure, x, y, f"aliased {aliased} %", 10, colours.vanish, "bold")
    write(figure, x + PANEL, y, f"kept {result.kept:.0f} %", 10, colours.keep, right=True)
    show(place_axes(figure, x, y + 8, PANEL, PANEL), result.picture)
    response(place_axes(figure, x, y + 8 + PANEL + BELOW, PANEL, CURVE), result.taps, colours)


def make_figure(width: int, height: int, colours: Colours) -> Figure:
    """An empty figure of so many pixels."""
    size = (width / DPI, height / DPI)
    return Figure(figsize=size, dpi=DPI * DENSITY, facecolor=colours.ground)


def place_axes(figure: Figure, x: int, y: int, width: int, height: int) -> Axes:
    """Axes with their upper left corner at pixel (x, y)."""
    across, down = figure.get_size_inches() * DPI
    return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))


def write(
    figure: Figure,
    x: int,
    y: int,
    text: str,
    size: float,
    colour: str,
    weight: str = "normal",
    right: bool = False,
    top: bool = False,
) -> None:
    """Text whose baseline, or upper edge, begins or ends at pixel (x, y)."""
    across, down = figure.get_size_inches() * DPI
    figure.text(
        x / across,
        1 - y / down,
        text,
        fontsize=size,
        fontweight=weight,
        color=colour,
        ha="right" if right else "left",
        va="top" if top else "baseline",
        linespacing=1.5,
    )


def show(axes: Axes, picture: Tensor) -> None:
    """A picture over its frequencies, with the square of those that may stay."""
    axes.imshow(
        picture.numpy(),
        cmap="gray",
        vmin=-1.0,
        vmax=1.0,
        interpolation="nearest",
        extent=(-0.5, 0.5, -0.5, 0.5),
        aspect="auto",
    )
    axes.add_patch(
        Rectangle(
            (-NYQUIST, -NYQUIST),
            2 * NYQUIST,
            2 * NYQUIST,
            fill=False,
            edgecolor="#ffb000",
            linewidth=1.4,
            linestyle=(0, (4, 3)),
        )
    )
    axes.set_axis_off()


def response(axes: Axes, taps: Sequence[float], colours: Colours) -> None:
    """The filter's gain over the same frequencies as the picture above."""
    frequency = torch.linspace(-0.5, 0.5, 513, dtype=torch.float64)
    values = gain(taps, frequency).abs().numpy()
    high = (frequency.abs() > NYQUIST).numpy()
    axes.axvspan(-NYQUIST, NYQUIST, color=colours.keep, alpha=0.10, linewidth=0)
    axes.fill_between(frequency.numpy(), values, where=high, color=colours.vanish, alpha=0.35, lw=0)
    axes.plot(frequency.numpy(), values, color=colours.ink, linewidth=1.5)
    axes.set(xlim=(-0.5, 0.5), ylim=(0.0, 1.12), xticks=[-0.5, -0.25, 0, 0.25, 0.5], yticks=[0, 1])
    axes.set_xticklabels(["-1/2", "-1/4", "0", "1/4", "1/2"])
    axes.set_xlabel("cycles per pixel", fontsize=8.5, labelpad=1)
    style(axes, colours)


def style(axes: Axes, colours: Colours) -> None:
    """Axes of two lines and small numbers, in the colours of the picture."""
    axes.set_facecolor(colours.ground)
    axes.tick_params(labelsize=8.5, colors=colours.muted, length=3)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colours.muted)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours.muted)


def save(figure: Figure, path: Path) -> None:
    """The figure as a PNG of 256 colours: less than half the bytes, no difference to see."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image = image.quantize(256, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        image.save(file, "PNG", optimize=True)


@ending_without_output
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m examples.zone_plate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--out", type=Path, default=Path("zone_plate.png"), help="the picture, a PNG [%(default)s]"
    )
    parser.add_argument("--dark", action="store_true", help="draw for a dark page")
    args = parser.parse_args(argv)
    try:
        with writable(args.out.parent, [args.out.name], option="the folder of --out"):
            plate = zone_plate(SIZE)
            results = [measure(plate, name, taps) for name, taps in FILTERS]
            say(table(results))
            save(draw(plate, results, DARK if args.dark else LIGHT), args.out)
    except OSError as error:
        parser.fail(explain_write(error))
    say(f"\n{args.out}")
    return 0


def table(results: Sequence[Result]) -> str:
    """The energies of the results, a line for each."""
    lines = [
        f"A zone plate of {SIZE} x {SIZE} halved; energies in percent of the plate's.",
        "kept: where frequencies may stay. aliased: where nothing may be left.",
        "In brackets: what the frequency response predicts.",
        "",
        f"{'filter':<22}{'taps':>4}{'kept':>10}{'':10}{'aliased':>12}",
    ]
    for r in results:
        kept = f"{r.name:<22}{len(r.taps):>4}{r.kept:>10.1f} ({r.kept_predicted:.1f})"
        lines.append(kept.ljust(46) + f"{r.aliased:>12.3f} ({r.aliased_predicted:.3f})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
