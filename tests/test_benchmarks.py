# SPDX-License-Identifier: BSD-3-Clause
"""RESULTS.md and its plots say what the kept rows say; nothing is timed here."""

import json

import pytest
import torch

from benchmarks import cpu, measure
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
        "p20": "0.50",
        "p80": "1.50",
        "deviation": "",
    }
    assert measure.numbers(rows, "deviation") == [1e-7]
    assert measure.worst(rows, "deviation") == "1e-07"
    assert [labels for labels, _ in measure.grouped(rows, "op")] == [["up 2"], ["down 2"]]
    assert torch.__version__ in measure.head("one")


def test_every_row_tells_its_deviation(monkeypatch):
    """Measured without time to speak of, on a small image: the columns, not the figures."""
    monkeypatch.setattr(cpu, "SHAPES", ((1, 64, 9, 9),))
    monkeypatch.setattr(cpu, "OPERATIONS", {"down 2": cpu.OPERATIONS["down 2"]})
    monkeypatch.setattr(cpu, "interleaved", lambda calls, _: {name: [1.0] for name in calls})
    rows = cpu.measure_formulations(quick=True, seconds=0.0)
    found = {row["formulation"]: [] for row in rows}
    for row in rows:
        found[row["formulation"]].append(float(row["deviation"]))
    assert all(error < 1e-6 for name in ("native", "depthwise") for error in found[name])
    assert max(found["interpolate"]) > 0.01  # another filter, so the deviation is told apart
