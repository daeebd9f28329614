# SPDX-License-Identifier: BSD-3-Clause
"""RESULTS.md and its plots say what the kept rows say; nothing is timed here."""

import argparse
import json
import shutil

import pytest
import torch

from benchmarks import cpu, dimensions, filtered, measure, overhead
from benchmarks.__main__ import SECTIONS, main, write

KEPT = sorted(path.stem for path in (measure.KEPT / "rows").glob("*.csv"))


@pytest.mark.parametrize("name", KEPT)
def test_results_are_made_of_the_rows(name, tmp_path):
    results = (measure.KEPT / "RESULTS.md").read_text()
    (tmp_path / "RESULTS.md").write_text(results)
    shutil.copytree(measure.KEPT / "rows", tmp_path / "rows")
    write(name, tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == results
    plot = tmp_path / f"{name}.svg"
    assert plot.exists() == (SECTIONS[name].plot is not None)
    if plot.exists():
        first = plot.read_bytes()
        write(name, tmp_path)
        assert plot.read_bytes() == first, "the same rows must give the same plot"


def test_every_file_of_rows_has_a_section_and_tells_how_it_was_measured():
    assert set(KEPT) <= set(SECTIONS)
    assert set(json.loads((measure.KEPT / "rows" / "measured.json").read_text())) == set(KEPT)


def test_rows_are_kept_and_read_again(tmp_path):
    first = {"op": "up 2", **measure.timing("time [ms]", [0.001, 0.002, 0.003], 1e-3)}
    measure.save("one", [first, {"op": "down 2", "deviation": "1e-07"}], "python", tmp_path / "new")
    rows = measure.load("one", tmp_path / "new")
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
    assert torch.__version__ in measure.head("one", tmp_path / "new")


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        arguments = argparse.Namespace(quick=False, seconds=0.0)
        measure.save(name, section.measure(arguments), "python -m benchmarks", tmp_path)
    finally:
        torch.set_num_threads(threads)
    rows = measure.load(name, tmp_path)
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


def test_out_keeps_the_files_of_the_repository(tmp_path, monkeypatch):
    def files(folder):
        found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path: path.read_bytes() for path in found}

    monkeypatch.setattr(overhead, "CALLS", 1)
    threads, before = torch.get_num_threads(), files(measure.KEPT)
    try:
        main(["--only", "overhead", "--seconds", "1e-9", "--out", str(tmp_path / "a" / "b")])
    finally:
        torch.set_num_threads(threads)
    main(["--report", "--out", str(tmp_path / "a" / "b")])  # of what is there
    assert files(measure.KEPT) == before
    written = {str(path.relative_to(tmp_path)) for path in files(tmp_path)}
    assert written == {
        f"a/b/{n}" for n in ("RESULTS.md", "rows/overhead.csv", "rows/measured.json")
    }
    results = (tmp_path / "a/b/RESULTS.md").read_text()
    assert "# Results\n\n<!-- begin overhead -->" in results
    assert "`python -m benchmarks --only overhead --seconds 1e-9 --out DIR`" in results.replace(
        "\n", " "
    )


@pytest.mark.parametrize(
    ("options", "name", "rule"),
    [
        (["--report"], "typo", "--out must be a folder with rows to report, got "),
        (["--only", "demo"], "file", "--out must be a folder that can be written to: [Errno "),
    ],
)
def test_an_odd_folder_is_refused_before_anything_is_measured(
    options, name, rule, tmp_path, capsys
):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main([*options, "--out", str(tmp_path / name)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert rule in error
    assert str(tmp_path / name) in error
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        *[("--seconds", value, "finite and > 0") for value in ("nan", "-1", "0", "inf", "one")],
        *[("--steps", value, "an int >= 1") for value in ("0", "-1", "1.5")],
    ],
)
def test_a_number_with_which_nothing_is_measured_is_refused(option, value, rule, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "overhead", f"{option}={value}", "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"argument {option}: it must be {rule}, got {value!r}")
    assert not (tmp_path / "out").exists()


def test_slow_calls_cost_few_rounds():
    now, taken = 0, []

    def call(name, duration):
        def take():
            nonlocal now
            taken.append(name)
            now += duration

        return take

    calls = {name: call(name, t) for name, t in (("ours", 2), ("slow", 30), ("quick", 1))}
    times = measure.interleaved(calls, 90, subject=["ours"], clock=lambda: now)
    # A share is 30: the slow call has had it after one round, and takes part in three. The others
    # take part in all, until they have had 60 together
    assert times == {"ours": [2] * 20, "slow": [30] * 3, "quick": [1] * 20}
    rounds = list(zip(*[iter(taken[15:])] * 2, strict=True))  # two calls of each, three rounds
    assert set(rounds) == {("ours", "quick"), ("quick", "ours")}
    # Ten times as long as what the row is about is not slow, nor is anything where all count
    for subject in (["slow"], []):
        times = measure.interleaved(calls, 0, subject, clock=lambda: now)
        assert [len(values) for values in times.values()] == [7] * 3
    with pytest.raises(KeyError, match="hours"):
        measure.interleaved(calls, 0, ["hours"], clock=lambda: now)


@pytest.mark.parametrize("name", ["overhead", "cpu", "epilogue", "filtered", "rational"])
def test_a_column_without_a_figure_is_left_out(name):
    rows = measure.load(name, measure.KEPT)
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
