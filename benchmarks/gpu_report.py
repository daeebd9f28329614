# SPDX-License-Identifier: BSD-3-Clause
"""Tables and a plot of what benchmarks/gpu.sh left, on any machine.

``python -m benchmarks.gpu_report FOLDER...`` writes the section of RESULTS.md, gpu.svg and
rows/gpu.jsonl, which has all rows, from one or several folders: gpu.sh may have been called for a
few steps at a time. What none of them holds is marked as unmeasured; without a folder that is
everything. *partial*: rows are missing, or ``--quick`` left some out. ``--print`` writes nothing;
``--plot FOLDER`` draws that folder's gpu.svg alone. A folder without a GPU is refused;
``--self-check`` prints what it would look like.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .measure import KEPT, draw, table, write_section

COMMAND = "bash benchmarks/gpu.sh"
LARGE = 64 << 20  # bytes of input and output from which the goals count
TAPS = (4, 12, 24)
UNMEASURED = "*unmeasured*"

LABELS = ("part", "operation", "resolution", "taps", "dtype", "layout", "bytes")

Row = dict[str, Any]
Table = list[list[str]]


class Results(NamedTuple):
    """What the folders hold; empty where nothing was measured."""

    steps: dict[str, str]  # a step of gpu.sh, its outcome and what it says was not run
    rows: list[Row]  # gpu.jsonl and native.jsonl
    training: list[Row]  # training.json and those of other precisions
    gpus: list[str]  # of each folder; "no GPU", or "" where the folder does not tell
    commands: list[str]

    def part(self, name: str) -> list[Row]:
        return [row for row in self.rows if row["part"] == name]

    def partial(self, name: str) -> bool:
        """Whether rows of this part are missing."""
        planned = sum(row.get(name, 0) for row in self.part("plan"))
        quick = any(row["quick"] for row in self.part("device"))
        failed = any(row["what"] == name for row in self.part("failed"))
        return quick or failed or len(self.part(name)) < planned

    @property
    def device(self) -> Row:
        return next(iter(self.part("device")), {})


def read(folders: Iterable[Path]) -> Results:
    """All folders together; of two that hold the same, the last counts."""
    steps: dict[str, str] = {}
    files: dict[str, list[Row]] = {}
    training: dict[str, Row] = {}
    gpus: list[str] = []
    commands: list[str] = []
    for folder in folders:
        gpu = ""
        if (folder / "steps.txt").exists():
            lines = (folder / "steps.txt").read_text().splitlines()
            steps |= outcomes(lines)
            told = dict(line.split(":", 1) for line in lines if line.startswith(("gpu:", "arg")))
            gpu = told.get("gpu", "").strip()
            commands.append(COMMAND + told.get("arguments", ""))
            if "gpu: no GPU" in lines:
                gpu = "no GPU"
        gpus.append(gpu)
        for name in ("gpu.jsonl", "native.jsonl"):
            if (folder / name).exists():
                files[name] = merged((folder / name).read_text().splitlines())
        for path in sorted(folder.glob("training*.json")):
            training[path.name] = json.loads(path.read_text())
    return Results(
        steps,
        [row for rows in files.values() for row in rows],
        list(training.values()),
        gpus,
        commands,
    )


def outcomes(lines: Iterable[str]) -> dict[str, str]:
    """Of steps.txt: indented lines belong to the step before them."""
    steps: dict[str, str] = {}
    last = ""
    for line in lines:
        outcome, _, rest = line.partition(": ")
        if line.startswith("  "):
            if last:
                steps[last] += f"; {line.strip()}"
        elif outcome in ("ok", "FAILED", "NOT RUN"):
            last, _, detail = rest.partition(", ")
            steps[last] = f"{outcome}, {detail}"
    return steps


def merged(lines: Iterable[str]) -> list[Row]:
    """A row's lines as one: ours, and NVIDIA's, which came later."""
    rows: dict[Any, Row] = {}
    for number, line in enumerate(lines):
        row = json.loads(line)
        labels = tuple(row.get(label) for label in LABELS if label != "bytes")
        key = number if "resolution" not in row or "what" in row else labels
        rows.setdefault(key, {}).update(row)
    return list(rows.values())


def share(row: Row, name: str, copy: float) -> float:
    """Bytes of input and output over the time, as a share of the copy's bandwidth."""
    return float(row["bytes"] / (row[name] * 1e-3) / copy)


def spread(values: Sequence[float], goal: float | None = None, partial: bool = False) -> str:
    """Median and least, and whether the least meets the goal in the rows there are."""
    if not values:
        return UNMEASURED
    text = f"median {statistics.median(values):.2f}, least {min(values):.2f} of {len(values)}"
    if goal is not None:
        text += f": {'met' if min(values) >= goal else 'missed'}"
    return f"{text} (partial)" if partial else text


def goals(results: Results) -> str:
    """Every point that only a GPU can decide, and where it stands."""
    layers, fused = results.part("layer"), results.part("fused")
    large = [row for row in layers if row["bytes"] >= LARGE]
    copy, peak = results.device.get("copy", 1.0), results.device.get("multiply_adds")
    some, some_fused = results.partial("layer"), results.partial("fused")
    directions = ("forward", "backward")

    def shares(taps: int, names: Sequence[str]) -> list[float]:
        return [share(r, n, copy) for r in large if r["taps"] == taps for n in names if n in r]

    def arithmetic(taps: int) -> list[float]:
        part = [row for row in large if row["taps"] == taps and peak]
        return [row["multiply_adds"] / (row["forward"] * 1e-3) / peak for row in part]

    def against_nvidia(rows: list[Row]) -> list[float]:
        return [r[f"nvidia {d}"] / r[d] for r in rows for d in directions if f"nvidia {d}" in r]

    def speedup(slow: str, fast: str) -> list[float]:
        return [r[slow] / r[fast] for r in fused if r["bytes"] >= LARGE and slow in r]

    def step(name: str) -> str:
        return results.steps.get(name, UNMEASURED)

    def lacks_nvidia(rows: list[Row], name: str) -> bool:
        kept = [row for row in rows if row["dtype"] != "bfloat16"]  # which its kernels know not
        return any(name not in row for row in kept)

    def two_devices() -> str:
        notes = step("tests_cuda").split("; ")
        skipped = [note for note in notes if "fewer than two CUDA devices" in note]
        if skipped:
            return skipped[0]
        return step("tests_cuda") if notes[0].startswith("ok") else UNMEASURED

    some_rounds = any(t["rounds"] < t["planned rounds"] for t in results.training)
    some_nvidia = some or lacks_nvidia(layers, "nvidia forward")
    some_bias_act = some_fused or lacks_nvidia(fused, "smoothing, nvidia bias_act")

    def steps(theirs: str, ours: str) -> list[float]:
        return [
            t["steps"][theirs][kind] / time
            for t in results.training
            if theirs in t["steps"]
            for kind, time in t["steps"].get(ours, {}).items()
        ]

    lines = [
        ["tests/test_cuda.py, test_upfirdn2d.py, test_bias_act.py, "
         "`RESAMPLE_LAYERS_REQUIRE_CUDA=1`: among them a stream of its own, CUDA graphs, more "
         "than 2^31 elements, out of memory, no synchronisation", "pass", step("tests_cuda")],
        ["two devices (tests/test_cuda.py)", "pass", two_devices()],
        ["tests of compile, export, transforms, gradients and layers, "
         "`RESAMPLE_LAYERS_REQUIRE_CUDA=1`", "pass", step("tests_most")],
        ["the rest of tests/test_*.py, `RESAMPLE_LAYERS_REQUIRE_CUDA=1`", "pass", step("tests")],
        ["every variant against float64, without torch", "pass", step("check")],
        ["compute-sanitizer memcheck, every variant", "no error", step("memcheck")],
        ["compute-sanitizer racecheck, every variant", "no hazard", step("racecheck")],
        ["device copy", "", f"{copy / 1e12:.2f} TB/s" if layers else UNMEASURED],
        ["up to 4 taps, 64 MB and more: share of the copy's bandwidth", "0.85",
         spread(shares(4, (*directions, "4x4 forward")), 0.85, some)],
        *([f"{taps} taps, 64 MB and more: share of the copy's bandwidth; share of the "
           "multiply-add rate", "both told",
           f"{spread(shares(taps, directions), None, some)}; "
           f"{spread(arithmetic(taps), None, some)}"] for taps in TAPS[1:]),
        ["NVIDIA's time / ours, every cell", "1", spread(against_nvidia(layers), 1.0, some_nvidia)],
        ["NVIDIA's time / ours, 12 and 24 taps", "1.5",
         spread(against_nvidia([row for row in layers if row["taps"] > 4]), 1.5,
                some_nvidia)],
        ["smoothing, then one compiled pass / the fused op", "1.7",
         spread(speedup("smoothing, compiled", "fused"), 1.7, some_fused)],
        ["smoothing, then NVIDIA's bias_act / the fused op without noise", "1.7",
         spread(speedup("smoothing, nvidia bias_act", "fused, no noise"), 1.7,
                some_bias_act)],
        ["smoothing, then eager noise, bias, leaky ReLU, gain / the fused op", "3",
         spread(speedup("smoothing, eager", "fused"), 3.0, some_fused)],
        ["training step of the StyleGAN2 example, 256 pixels, batch 16, with NVIDIA's ops / with "
         "ours (plain and amortised, each precision)", "1.15",
         spread(steps("nvidia", "ours"), 1.15, some_rounds)],
        *([f"the same, NVIDIA's own networks and loss / {ours}", "1.3",
           spread(steps("nvidia networks", ours), 1.3, some_rounds)]
          for ours in ("ours", "ours in CUDA graphs")),
        ["plot of the shares", "", "benchmarks/gpu.svg" if layers else UNMEASURED],
    ]  # fmt: skip
    return table(["what", "goal", "measured"], lines)


FORMATS = tuple(
    (d, f) for d in ("float32", "float16", "bfloat16") for f in ("contiguous", "channels_last")
)
OPERATIONS = ("smooth", "up 2", "down 2")


def by_format(rows: list[Row], cell: Callable[[list[Row]], str], kernel: str = "taps") -> Table:
    """One line for each operation and length of the taps, one cell for each dtype and format."""
    lines: Table = []
    for operation in OPERATIONS:
        for taps in TAPS:
            alike = [r for r in rows if (r["operation"], r["taps"]) == (operation, taps)]
            cells = [cell([r for r in alike if (r["dtype"], r["layout"]) == f]) for f in FORMATS]
            if any(cells):
                lines.append([operation, f"{taps} taps" if kernel == "taps" else kernel, *cells])
    return lines


def extent(values: Sequence[float], second: float | None = None) -> str:
    """The least value, and the largest or ``second``."""
    return f"{min(values):.2f} / {max(values) if second is None else second:.2f}" if values else ""


def layer_tables(results: Results) -> list[str]:
    """Shares of the copy's bandwidth at 64 MB and more, and NVIDIA's times over ours."""
    copy, rows = results.device["copy"], results.part("layer")
    large = [row for row in rows if row["bytes"] >= LARGE]

    def shares(name: str) -> Callable[[list[Row]], str]:
        return lambda alike: extent([share(row, name, copy) for row in alike if name in row])

    def ratios(alike: list[Row]) -> str:
        values = [
            row[f"nvidia {d}"] / row[d]
            for row in alike
            for d in ("forward", "backward")
            if f"nvidia {d}" in row
        ]
        return extent(values, statistics.median(values)) if values else ""

    header = ["op", "kernel", *(f"{dtype}, {layout}" for dtype, layout in FORMATS)]
    forward = by_format(large, shares("forward")) + by_format(large, shares("4x4 forward"), "4x4")
    error = max((row["error"] for row in rows if row["dtype"] == "float32"), default=0.0)
    return [
        "Forward, 64 MB and more: bytes of input and output over the time, as a share of the "
        "copy's bandwidth; least / largest. *4x4*: the kernel is given as 4x4.",
        table(header, forward),
        "Backward likewise:",
        table(header, by_format(large, shares("backward"))),
        "NVIDIA's time over ours, forward and backward, all sizes; least / median:",
        table(header, by_format(rows, ratios)),
        f"Results were checked against float64; largest relative error in float32: {error:.0e}.",
    ]


def fused_table(results: Results) -> str:
    """The fused op beside what it replaces: shares of the copy's bandwidth and ratios of times."""
    copy = results.device["copy"]
    ratios = {
        "compiled pass": ("smoothing, compiled", "fused"),
        "eager passes": ("smoothing, eager", "fused"),
        "NVIDIA's bias_act": ("smoothing, nvidia bias_act", "fused, no noise"),
        "compiled pass, step": ("smoothing, compiled step", "fused step"),
        "activation, step": ("activation, compiled step", "activation step"),
    }
    shares = {
        "fused": "fused", "without noise": "fused, no noise", "activation alone": "activation"
    }  # fmt: skip
    lines = []
    for row in results.part("fused"):
        line = [str(row["resolution"]), row["dtype"], row["layout"]]
        line += [f"{share(row, name, copy):.2f}" if name in row else "" for name in shares.values()]
        line += [
            f"{row[a] / row[b]:.2f}" if a in row and b in row else "" for a, b in ratios.values()
        ]
        lines.append(line)
    return table(["px", "dtype", "layout", *shares, *ratios], lines)


def time_table(rows: list[Row], keys: Sequence[str]) -> str:
    """Whatever times in milliseconds the rows hold, labelled by ``keys``."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in LABELS))
    lines = [
        [str(row[key]) for key in keys]
        + [f"{row[name]:.3f}" if name in row else "" for name in names]
        for row in rows
    ]
    return table([*keys, *names], lines)


def section(results: Results) -> str:
    """The section of RESULTS.md."""
    parts = ["## CUDA kernels"]
    commands = "; ".join(f"`{command}`" for command in dict.fromkeys(results.commands))
    if results.rows:
        d = results.device
        parts.append(
            f"{d['device']}; torch {d['torch']}, CUDA {d['cuda']}; {d['kernels']}; {d['date']}. "
            f"Run: {commands}. Medians; the cache is overwritten before each call."
        )
    elif results.commands:
        parts.append(f"{', '.join(dict.fromkeys(results.gpus))}. Run: {commands}.")
    else:
        command = f"{COMMAND} --stylegan3 CHECKOUT --minutes 60"
        parts.append(f"Unmeasured: nobody has run it on a GPU yet. The one command: `{command}`.")
    parts.append(goals(results))
    notes = [
        f"{name}: {note}"
        for name in ("benchmark", "training", "half", "native")
        for note in results.steps.get(name, "").split("; ")
        if "NOT RUN" in note or "FAILED" in note
    ]
    if notes:
        parts.append("Of the benchmarks: " + "; ".join(notes) + ".")
    if results.part("layer"):
        parts.append("![Share of the copy's bandwidth](gpu.svg)")
        parts += layer_tables(results)
    if results.part("fused"):
        parts.append(
            "Smoothing with noise, bias, leaky ReLU and gain in one op, as a share of the copy's "
            "bandwidth (*without noise*; *activation alone*: no smoothing), and the time of what "
            "it replaces over its own: smoothing, then one *compiled pass*, *eager passes*, or "
            "*NVIDIA's bias_act* (which has no noise; neither has ours there). *step*: forward and "
            "backward; *activation, step*: of the activation alone, a compiled pass over ours. "
            "Bias and noise are float32, NVIDIA's bias is of the images' dtype."
        )
        parts.append(fused_table(results))
    if results.part("native"):
        parts.append(
            "Beside native and torch.compile of native [ms], the layers of 256 and 1024 pixels "
            "alone, 4 and 12 taps, float32 and float16"
            f"{' (partial)' if results.partial('native') else ''}:"
        )
        keys = ("operation", "resolution", "taps", "dtype", "layout")
        parts.append(time_table(results.part("native"), keys))
    for t in results.training:
        lines = []
        for name, steps in t["steps"].items():
            values = (*t["parts"][name].values(), *steps.values())
            lines.append([name, *(f"{value:.1f}" for value in values)])
        header = ["column", *t["parts"]["ours"], *(f"{kind} step" for kind in t["steps"]["ours"])]
        parts.append(
            f"Training step of the StyleGAN2 example, {t['resolution']} pixels, batch "
            f"{t['batch']}, {t['precision']} [ms], medians of {t['rounds']} rounds in turns; "
            f"{t['device']}, {t['date']}:"
        )
        parts.append(table(header, lines))
    undone = [
        f"{row['rows']} rows of {row['what']}, {row['minutes']:g} minutes were over"
        for row in results.part("not run")
    ]
    undone += [f"{row['what']}: {row['error']}" for row in results.part("failed")]
    if undone:
        parts.append("Not measured: " + "; ".join(undone) + ".")
    return "\n\n".join(parts)


def plot(results: Results, path: Path) -> None:
    """Share of the copy's bandwidth against size: a column for each length of the taps."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    colours = {"float32": "C0", "float16": "C1", "bfloat16": "C2"}
    markers = {"contiguous": "o", "channels_last": "x"}
    copy = results.device["copy"]
    figure, axes = plt.subplots(2, len(TAPS), figsize=(9, 5.6), sharex=True, sharey=True)
    for line, direction in zip(axes, ("forward", "backward"), strict=True):
        for axis, taps in zip(line, TAPS, strict=True):
            for dtype, colour in colours.items():
                for layout, marker in markers.items():
                    rows = [
                        row
                        for row in results.part("layer")
                        if (row["taps"], row["dtype"], row["layout"]) == (taps, dtype, layout)
                    ]
                    axis.scatter(
                        [row["bytes"] / 2**20 for row in rows],
                        [share(row, direction, copy) for row in rows],
                        s=10, c=colour, marker=marker, linewidths=0.8, label=f"{dtype}, {layout}",
                    )  # fmt: skip
            axis.set_title(f"{taps} taps, {direction}")
            axis.set_xscale("log")
            axis.axhline(1.0, color="0.5", linewidth=0.8)
            if taps == 4:
                axis.axhline(0.85, color="0.5", linewidth=0.8, linestyle="--")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of copy bandwidth")
    for axis in axes[1]:
        axis.set_xlabel("input and output [MB]")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=3, frameon=False)
    figure.suptitle(f"{results.device['device']}: copy {copy / 1e12:.2f} TB/s", color="#808080")
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    draw(figure, path)


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_report", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="what gpu.sh has left")
    parser.add_argument("--print", action="store_true", help="print the section, write nothing")
    parser.add_argument("--self-check", action="store_true", help="print even what is no GPU's")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw gpu.svg in this folder")
    arguments = parser.parse_args()
    if arguments.plot:
        plot(read([arguments.plot]), arguments.plot / "gpu.svg")
        return
    results = read(arguments.folders)
    tiny = any(row["self_check"] for row in (*results.training, *results.part("device")))
    for folder, gpu in zip(arguments.folders, results.gpus, strict=True):
        if gpu in ("", "no GPU") and not arguments.self_check:
            raise SystemExit(f"{folder}: no GPU ran what is there; --self-check prints it")
    if tiny and not arguments.self_check:
        raise SystemExit("these folders hold a self-check, which measures nothing")
    if arguments.print or arguments.self_check:
        print(section(results))
        return
    write_section("gpu", section(results), KEPT)
    (KEPT / "rows" / "gpu.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in results.rows)
    )
    if results.part("layer"):
        plot(results, KEPT / "gpu.svg")


if __name__ == "__main__":
    main()
