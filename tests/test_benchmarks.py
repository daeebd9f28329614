# SPDX-License-Identifier: BSD-3-Clause
"""RESULTS.md and its plots say what the kept rows say; nothing is timed here."""

import argparse
import itertools
import json

import pytest
import torch

from benchmarks import cpu, dimensions, filtered, measure, overhead
from benchmarks.__main__ import SECTIONS, write

KEPT = sorted(path.stem for path in measure.ROWS.glob("*.csv"))


@pytest.mark.parametrize("name", KEPT)
def test_results_are_made_of_the_rows(name, tmp_path, monkeypatch):
    results = measure.RESULTS.read_text()
    (tmp_path / "RESULTS.md").write_text(results)
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("benchmarks.__main__.RESULTS", tmp_path / "RESULTS.md")
    write(name)
    assert (tmp_path / "RESULTS.md").read_text() == results
    assert (tmp_path / f"{name}.svg").exists() == (SECTIONS[name].plot is not None)


def test_every_file_of_rows_has_a_section_and_tells_how_it_was_measured():
    assert set(KEPT) <= set(SECTIONS)
    assert set(json.loads(measure.MEASURED.read_text())) == set(KEPT)


def test_rows_are_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(measure, "MEASURED", tmp_path / "rows" / "measured.json")
    first = {"op": "up 2", **measure.timing("time [ms]", [0.001, 0.002, 0.003], 1e-3)}
    measure.save("one", [first, {"op": "down 2", "deviation": "1e-07"}])
    rows = measure.load("one")
    assert rows[0] == {
        "op": "up 2",
        "time [ms]": "2",
        "p20": "0.5",
        "p80": "1.5",
        "deviation": "",
    }
    assert measure.numbers(rows, "deviation") == [1e-7]
    assert measure.worst(rows, "deviation") == "1e-07"
    assert [labels for labels, _ in measure.grouped(rows, "op")] == [["up 2"], ["down 2"]]
    assert torch.__version__ in measure.head("one")


def few(monkeypatch, module, **names):
    for name, value in names.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("name", ["overhead", "cpu", "floor", "epilogue", "dimensions", "filtered"])
def test_every_row_tells_its_deviation_and_its_spread(name, tmp_path, monkeypatch):
    """Measured without time to speak of, on small arrays: the columns, not the figures."""
    rate = {"up 2": cpu.OPERATIONS["up 2"], "down 2": cpu.OPERATIONS["down 2"]}
    few(
        monkeypatch, cpu, SHAPES=((1, 64, 9, 9),), OPERATIONS=rate,
        FLOOR_SHAPES={"small": (1, 16, 10, 10)}, EPILOGUE_SIZES=(64,), LAYOUTS=cpu.LAYOUTS[:1],
    )  # fmt: skip
    few(monkeypatch, dimensions, SHAPES=((1, 2, 64), (1, 2, 6, 6, 6)), RATES=rate)
    few(monkeypatch, filtered, SIGNALS=((1, 3, 60),), IMAGES=(((1, 3, 20, 20), 2, 2),))
    monkeypatch.setattr(overhead, "CALLS", 1)
    section = SECTIONS[name]
    few(monkeypatch, measure, ROWS=tmp_path, MEASURED=tmp_path / "measured.json")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measure.save(name, section.measure(argparse.Namespace(quick=False, seconds=0.0)))
    finally:
        torch.set_num_threads(threads)
    rows = measure.load(name)
    for row in rows:
        others = row.get("formulation") == "interpolate"  # another filter: it must be told apart
        bound = 0.02 if {"bfloat16", "float16"} & set(row.values()) else 1e-5
        assert (float(row["deviation"]) > 0.01) == others, row
        assert others or float(row["deviation"]) < bound, row
        assert 0 < float(row["p20"]) <= 1 <= float(row["p80"]), row
    head, _, *lines = [line for line in section.report(rows).splitlines() if line.startswith("|")]
    assert head.endswith(f"| deviation | {measure.SPREAD} |")
    assert lines
    for line in lines:
        assert float(line.split("|")[-2]) >= 1
        assert float(line.split("|")[-3]) >= 0


def test_slow_calls_cost_few_rounds():
    now, taken = 0, []

    def call(name, durations):
        def take():
            nonlocal now
            taken.append(name)
            now += next(durations)

        return take

    calls = {
        "slow": call("slow", itertools.repeat(30)),
        "quick": call("quick", itertools.cycle((2, 1))),
        "quicker": call("quicker", itertools.repeat(1)),
    }
    times = measure.interleaved(calls, 90, few=["slow"], clock=lambda: now)
    # A share is 30: the slow call has had it after one round, and takes part in three. The others
    # take part in all, until they have had 60 together
    assert times == {"slow": [30] * 3, "quick": [1] * 12 + [2] * 12, "quicker": [1] * 24}
    rounds = list(zip(*[iter(taken[12:])] * 2, strict=True))  # after the first calls and the slow
    assert all(set(pair) == {"quick", "quicker"} for pair in rounds)
    assert len(set(rounds)) == 2, "every round has the same order"
    assert [len(t) for t in measure.interleaved(calls, 0, clock=lambda: now).values()] == [7] * 3


@pytest.mark.parametrize("name", ["overhead", "cpu", "epilogue", "filtered", "rational"])
def test_a_column_without_a_figure_is_left_out(name):
    rows = measure.load(name)
    pieces = (f"{measure.SPREAD} |", "| deviation |", f"*{measure.SPREAD}*:", "*Deviation*:")
    for figures, is_there in (("0.5", "2", "1e-07"), True), (("", "", ""), False):
        columns = dict(zip(("p20", "p80", "deviation"), figures, strict=True))
        text = SECTIONS[name].report([row | columns for row in rows])
        assert [piece in text for piece in pieces] == [is_there] * len(pieces)
        widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
        assert len(widths) == 1


def test_the_spread_is_the_widest_of_what_a_row_compares():
    row = measure.timing("time [s]", [1.0, 2.0, 3.0, 4.0, 5.0], 1.0, [1.0, 1.0, 1.0, 1.0, 1.0])
    assert row == {"time [s]": "3", "p20": "0.667", "p80": "1.67"}
    assert measure.widest([row, {"p20": "", "p80": ""}]) == "2.50"
    assert measure.widest([{"p20": ""}]) == ""
