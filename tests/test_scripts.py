# SPDX-License-Identifier: BSD-3-Clause
"""What scripts/mutate.py and scripts/test_matrix.py do where something is wrong or has changed."""

import shutil
import sqlite3
import tempfile
from contextlib import closing

import pytest

from scripts import mutate, test_matrix


def test_results_of_mutants_hold_for_one_state_of_module_and_tests(tmp_path):
    module = "resample_layers/geometry.py"
    for name in ("resample_layers", "tests"):
        files = shutil.ignore_patterns("__pycache__", "lib", "fixtures", "*.npz")
        shutil.copytree(mutate.ROOT / name, tmp_path / name, ignore=files)
    first = mutate.results_of(module, tmp_path)
    assert first.parent == tmp_path
    assert first.name.startswith("geometry-")
    seen = {first}
    for name in (module, "tests/test_geometry.py", "tests/oracle.py"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        seen.add(mutate.results_of(module, tmp_path))
    assert len(seen) == 4
    (tmp_path / "tests/test_layers.py").write_text("")  # another module's
    assert mutate.results_of(module, tmp_path) in seen


def test_results_that_are_not_to_be_trusted_are_forgotten(tmp_path):
    results = tmp_path / "results.sqlite"
    with closing(sqlite3.connect(results)) as session, session:
        session.execute("create table work_results (job_id text)")
        session.executemany("insert into work_results values (?)", [("old",), ("new",), ("newer",)])
    mutate.forget(results, {"old"})
    assert mutate.finished(results) == {"old"}


def test_a_misspelt_row_of_the_matrix_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["test_matrix.py", "--only", "newest", "flor"])
    with pytest.raises(SystemExit) as stopped:
        test_matrix.main()
    assert stopped.value.code == 2
    assert "invalid choice: 'flor'" in capsys.readouterr().err


def test_a_torch_that_cannot_be_installed_fails_its_row_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["test_matrix.py"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("RESAMPLE_LAYERS_REQUIRE", raising=False)
    # There is no Python 0.0, so the Python of this test sets up the first row, to build the wheel
    rows = [test_matrix.Row(name, "0.0", "torch==0", "a test") for name in ("first", "second")]
    monkeypatch.setattr(test_matrix, "ROWS", rows)
    assert test_matrix.main() == 1
    *_, first, failed, second = capfd.readouterr().out.splitlines()
    assert first == "NOT RUN: first (a test), no python0.0"
    assert failed.startswith("FAILED: first, Python 0.0, torch==0 (Command")
    assert second == "NOT RUN: second (a test), no python0.0"
    assert list(tmp_path.iterdir()) == []
