# SPDX-License-Identifier: BSD-3-Clause
"""``python -m benchmarks``: time everything this machine can, and write RESULTS.md and its plots.

What is measured goes to ``rows/``; the sections of RESULTS.md and ``cpu.svg`` are made of that.
``--report`` makes them again and measures nothing. All of it goes where the repository keeps it, in
``benchmarks/``, or into the folder that ``--out`` names.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scripts.options import count, positive

from . import cpu, demo, dimensions, filtered, overhead, rational
from .measure import KEPT, Row, draw, head, load, rows_file, save, write_section


class Section(NamedTuple):
    """A section of RESULTS.md: how its rows are measured, and what they say in short."""

    title: str
    measure: Callable[[argparse.Namespace], list[Row]]
    report: Callable[[list[Row]], str]
    plot: Callable[[list[Row]], Any] | None = None


SECTIONS = {
    "overhead": Section(
        "One eager call on a 1x1x4x4 tensor",
        lambda a: overhead.measure(a.seconds),
        overhead.report,
    ),
    "cpu": Section(
        "On the CPU, float32, forward",
        lambda a: cpu.measure_formulations(a.quick, a.seconds),
        cpu.report_formulations,
        cpu.plot_formulations,
    ),
    "floor": Section(
        "Compiled CPU kernels as multiples of the floor",
        lambda a: cpu.measure_floors(a.quick, a.seconds),
        cpu.report_floors,
    ),
    "epilogue": Section(
        "Smoothing with noise, bias, leaky ReLU and gain",
        lambda a: cpu.measure_epilogue(a.seconds),
        cpu.report_epilogue,
    ),
    "dimensions": Section(
        "Signals and volumes", lambda a: dimensions.measure(a.seconds), dimensions.report
    ),
    "filtered": Section(
        "Filtered activations", lambda a: filtered.measure(a.seconds), filtered.report
    ),
    "rational": Section("Rational rates", lambda a: rational.measure(a.seconds), rational.report),
    "memory": Section("Peak memory of native", lambda a: cpu.measure_memory(), cpu.report_memory),
    "memory-gradient": Section(
        "Peak memory of forward plus backward",
        lambda a: cpu.measure_gradient_memory(),
        cpu.report_gradient_memory,
    ),
    "demo": Section("The StyleGAN2 demo", lambda a: demo.measure(a.steps), demo.report),
}


def write(name: str, folder: Path) -> None:
    """Make a section, and its plot, of the rows in a folder."""
    section, rows = SECTIONS[name], load(name, folder)
    text = f"## {section.title}\n\n{head(name, folder)}\n\n{section.report(rows)}"
    write_section(name, text, folder)
    if section.plot:
        draw(section.plot(rows), folder / f"{name}.svg")


def command(argv: Sequence[str] | None) -> str:
    """The command that makes a section again; folders of this machine are not told."""
    words = list(sys.argv[1:] if argv is None else argv)
    for i, word in enumerate(words):
        if word == "--out":
            words[i + 1] = "DIR"
        elif word.startswith("--out="):
            words[i] = "--out=DIR"
    return " ".join(["python -m benchmarks", *words])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes and dtypes")
    parser.add_argument("--seconds", type=positive, default=0.3, help="for each row, in seconds")
    parser.add_argument("--steps", type=count, default=1000, help="steps of the demo")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to measure")
    parser.add_argument("--report", action="store_true", help="measure nothing, write anew")
    parser.add_argument(
        "--out", type=Path, default=KEPT, metavar="DIR",
        help="write here, and leave the files of the repository as they are",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    names = arguments.only or list(SECTIONS)
    if arguments.report:
        names = [name for name in names if rows_file(name, arguments.out).exists()]
        if not names:
            parser.error(f"--out must be a folder with rows to report, got {arguments.out}")
    else:
        try:  # before minutes of measuring
            (arguments.out / "rows").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out must be a folder that can be written to: {error}")
    began = time.monotonic()
    for name in names:
        start = time.monotonic()
        if not arguments.report:
            torch.set_num_threads(2)
            torch.manual_seed(0)
            save(name, SECTIONS[name].measure(arguments), command(argv), arguments.out)
        write(name, arguments.out)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"the whole: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
