# SPDX-License-Identifier: BSD-3-Clause
"""Timing side by side, peak memory in a process of its own, rows in files, sections of RESULTS.md.

Every section of RESULTS.md is made of rows: what was measured stands in ``rows/NAME.csv``, and
where, when and with which command in ``rows/measured.json``. RESULTS.md has what they say in short.
All of these stand in one folder: this one, or another that a call names.
"""

from __future__ import annotations

import csv
import gc
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from datetime import date
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from torch import Tensor

# Where RESULTS.md, its plots and the rows stand that the repository keeps
KEPT = Path(__file__).parent

Row = dict[str, Any]


def interleaved(
    calls: dict[str, Callable[[], object]],
    seconds: float,
    subject: Collection[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time all calls in turn, round after round, each round in another order.

    What disturbs one call disturbs its neighbours, and no call always has the same neighbour: what
    it leaves in the caches and in the allocator is not always the same call's gain or loss. For
    that reason too, the calls that a row is about (``subject``; none named: all) take part in every
    round, and so does every other one that takes at most ten times as long as the slowest of them.
    What is slower sits out as soon as it has had three rounds and its share of ``seconds``, an
    equal part for each call.

    Returns:
        Seconds of every round of a call, sorted, by name. There are seven rounds at least, and more
        until the calls of every round have had their shares together.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}

    def take(name: str) -> float:
        start = clock()
        result = calls[name]()
        taken = clock() - start
        del result
        return taken

    for name in calls:
        take(name)
    first = {name: take(name) for name in calls}  # now that it is warm
    gc.collect()
    share, order, shuffler = seconds / len(calls), list(calls), random.Random(0)
    slowest = max(first[name] for name in subject or calls)
    steady = [name for name in calls if first[name] <= 10 * slowest]
    rounds = 0
    while rounds < 7 or sum(sum(times[n]) for n in steady) < share * len(steady):
        shuffler.shuffle(order)
        for name in order:
            if name in steady or rounds < 3 or sum(times[name]) < share:
                times[name].append(take(name))
        rounds += 1
    return {name: sorted(values) for name, values in times.items()}


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> tuple[float, float]:
    """The 20th and the 80th percentile, in multiples of the median."""
    middle = median(values)
    return values[len(values) // 5] / middle, values[len(values) * 4 // 5] / middle


def spreads(*times: list[float]) -> Row:
    """The columns of the spread of one or several times: the widest of them."""
    lows, highs = zip(*map(spread, times), strict=True)
    return {"p20": digits(min(lows)), "p80": digits(max(highs))}


def timing(name: str, values: list[float], unit: float = 1.0, *others: list[float]) -> Row:
    """The columns of one measured time: its median in ``unit`` seconds, and the spread.

    ``others`` are times that the row compares with this one: their spread counts too.
    """
    return {name: digits(median(values) / unit), **spreads(values, *others)}


def digits(value: float) -> str:
    """Three digits, which is what a time on a shared machine has, without an exponent."""
    return f"{float(f'{value:.3g}'):g}"


def deviation(found: Tensor, expected: Tensor) -> str:
    """The largest difference, relative to the largest expected value; "" for another shape."""
    if found.shape != expected.shape:
        return ""
    wide = expected.double()
    return f"{(found.double() - wide).abs().max() / wide.abs().max():.0e}"


def layout_name(layout: torch.memory_format) -> str:
    return "channels_last" if layout == torch.channels_last else "contiguous"


def peak_memory(setup: str, call: str) -> tuple[int, int]:
    """Bytes a call adds at its peak to what stood before it, and the bytes of its result.

    Runs in a fresh process: ``setup`` may define names, ``call`` is an expression that gives a
    tensor. Read from the kernel's counters (VmHWM, reset before the call), so that what libraries
    allocate for themselves counts too.
    """
    code = f"""
import torch
torch.set_num_threads(2)
{setup}
def read(name):
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) * 1024 for l in status if l.startswith(name + ":"))
before = read("VmRSS")
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")
result = {call}
print(read("VmHWM") - before, result.numel() * result.element_size())
"""
    text = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    added, result = text.split()
    return int(added), int(result)


def provenance() -> str:
    """Machine, versions and date, for the head of a table."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return (
        f"{model}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"torch {torch.__version__}, Python {platform.python_version()}; {date.today()}"
    )


def save(name: str, rows: list[Row], command: str, folder: Path) -> None:
    """Keep the rows of a section, and how they were measured: where, when, with which command."""
    path, how = rows_file(name, folder), folder / "rows" / "measured.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    measured = json.loads(how.read_text()) if how.exists() else {}
    measured[name] = {"where": provenance(), "command": command}
    how.write_text(json.dumps(measured, indent=2, sort_keys=True) + "\n")


def rows_file(name: str, folder: Path) -> Path:
    return folder / "rows" / f"{name}.csv"


def load(name: str, folder: Path) -> list[Row]:
    """The rows of a section; all values are strings."""
    with rows_file(name, folder).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def head(name: str, folder: Path) -> str:
    """Where, when and with which command the rows of a section were measured."""
    measured = json.loads((folder / "rows" / "measured.json").read_text())[name]
    return (
        f"{measured['where']}. Command: `{measured['command']}`. "
        f"All rows: [rows/{name}.csv](rows/{name}.csv)."
    )


def grouped(rows: list[Row], *keys: str) -> list[tuple[list[str], list[Row]]]:
    """Rows that agree in ``keys``, together; groups in the order of their first rows."""
    order: dict[tuple[str, ...], int] = {}
    for row in rows:
        order.setdefault(tuple(row[key] for key in keys), len(order))

    def place(row: Row) -> int:
        return order[tuple(row[key] for key in keys)]

    groups = groupby(sorted(rows, key=place), place)
    return [(list(list(order)[at]), list(group)) for at, group in groups]


def numbers(rows: list[Row], column: str) -> list[float]:
    """The column's numbers, sorted; rows without one are left out."""
    return sorted(float(row[column]) for row in rows if row.get(column))


def middle_and_worst(rows: list[Row], column: str, least: bool = False) -> str:
    """The median of a column and its largest value, or its least."""
    values = numbers(rows, column)
    return f"{digits(median(values))} / {digits(values[0 if least else -1])}" if values else ""


def worst(rows: list[Row], column: str) -> str:
    """The largest value of a column of deviations."""
    values = numbers(rows, column)
    return f"{values[-1]:.0e}" if values else ""


def widest(rows: list[Row]) -> str:
    """The widest spread of some rows, 80th percentile over 20th; "" where they have none."""
    ratios = [float(row["p80"]) / float(row["p20"]) for row in rows if row.get("p20")]
    return f"{max(ratios):.2f}" if ratios else ""


# What the column that `widest` makes is called
SPREAD = "p80 / p20"
# How `interleaved` times, for the reader of a table
TURNS = (
    "Calls take turns in rounds, each round in another order; slow formulations have fewer rounds, "
    "three at least."
)


def about(rows: list[Row], deviation: str) -> str:
    """The sentences that explain the columns of deviation and spread, where rows have figures."""
    sentences = []
    if numbers(rows, "deviation"):
        sentences.append(f"*Deviation*: {deviation}.")
    if numbers(rows, "p20"):
        sentences.append(f"*{SPREAD}*: the widest spread of the times that a line compares.")
    return " ".join(sentences)


def write_section(name: str, text: str, folder: Path) -> None:
    """Replace one section of RESULTS.md, or append it; paragraphs are filled to 100 columns."""
    results = folder / "RESULTS.md"
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    parts = [
        part if part.startswith(("|", "#", "!")) else fill(part, 100, break_on_hyphens=False)
        for part in text.strip().split("\n\n")
    ]
    block = "\n".join((begin, "\n\n".join(parts), end))
    old = results.read_text() if results.exists() else "# Results\n"
    if begin in old:
        head, rest = old.split(begin)
        new = head + block + rest.split(end)[1]
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    results.write_text(new)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, without the columns that have nothing in any row."""
    kept = [at for at in range(len(header)) if not rows or any(row[at] for row in rows)]
    header, *rows = [[line[at] for at in kept] for line in (header, *rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(figure: Any, path: Path) -> None:
    """Write a plot as SVG, in colours that are read on light and on dark pages.

    The same rows give the same file.
    """
    from matplotlib import rc_context

    grey = "#808080"
    for axis in figure.axes:
        axis.tick_params(colors=grey, which="both")
        for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
            text.set_color(grey)
        for side in axis.spines.values():
            side.set_color(grey)
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_color(grey)
    with rc_context({"svg.hashsalt": path.stem}):  # or else every file has ids of its own
        figure.savefig(
            path, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None}
        )
