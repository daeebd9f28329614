# SPDX-License-Identifier: BSD-3-Clause
"""What the scripts do where something is wrong or has changed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing

import pytest

from scripts import fuzz_arguments, fuzz_checkpoints, fuzz_ops, mutate, test_matrix


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


@pytest.mark.parametrize("name", ["nowhere.whl", "folder.whl", "file.txt"])
def test_what_is_no_wheel_is_refused_before_anything_is_installed(
    name, tmp_path, monkeypatch, capsys
):
    (tmp_path / "folder.whl").mkdir()
    (tmp_path / "file.txt").touch()
    monkeypatch.setattr("sys.argv", ["test_matrix.py", "--wheel", str(tmp_path / name)])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))  # it makes no folder there
    with pytest.raises(SystemExit) as stopped:
        test_matrix.main()
    assert stopped.value.code == 2
    told = f"error: --wheel must be a file that ends in .whl, got {tmp_path / name}\n"
    assert capsys.readouterr().err.endswith(told)


STOPPED = """
import sys
from scripts import test_matrix

test_matrix.ROWS = (test_matrix.Row("first", "0.0", "torch==0", "a test"),)
sys.argv[1:] = []
sys.exit(test_matrix.main())
"""


def test_a_matrix_that_is_stopped_leaves_nothing_on_disk(tmp_path):
    """While it makes the environment of the first row; gigabytes may lie there."""
    variables = {**os.environ, "TMPDIR": str(tmp_path), "PIP_NO_INDEX": "1"}
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, env=variables, cwd=mutate.ROOT, stdout=-1, text=True) as matrix:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("*/first/venv/pyvenv.cfg")) and time.monotonic() < until:
            time.sleep(0.01)
        matrix.send_signal(signal.SIGTERM)
        said, _ = matrix.communicate()
    assert matrix.returncode == 128 + signal.SIGTERM
    assert "-m venv" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "option", "value", "rule"),
    [
        (fuzz_checkpoints, "--files", "-5", "an int >= 1"),
        (fuzz_checkpoints, "--files", "0", "an int >= 1"),
        (fuzz_checkpoints, "--seconds", "nan", "finite and > 0"),
        (fuzz_checkpoints, "--megabytes", "nan", "finite and > 0"),
        (fuzz_ops, "--examples", "-3", "an int >= 1"),
        (fuzz_ops, "--examples", "1e3", "an int >= 1"),
        (fuzz_ops, "--seconds", "nan", "finite and > 0"),
        (fuzz_ops, "--seconds", "inf", "finite and > 0"),
        (fuzz_arguments, "--runs", "-1", "an int >= 1"),
        (fuzz_arguments, "--runs", "0", "an int >= 1"),
    ],
)
def test_a_fuzzer_that_would_try_nothing_is_refused(
    script, option, value, rule, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", [script.__file__, f"{option}={value}"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2
    told = f"error: argument {option}: it must be {rule}, got {value!r}\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("name", ["nowhere", "folder"])
def test_a_file_to_read_that_is_none_is_refused(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    paths = [str(tmp_path / "file"), str(tmp_path / name)]
    keep = str(tmp_path / "kept")
    monkeypatch.setattr("sys.argv", ["fuzz_checkpoints.py", "--keep", keep, "--read", *paths])
    with pytest.raises(SystemExit) as stopped:
        fuzz_checkpoints.main()
    assert stopped.value.code == 2
    told = f"error: --read must name files that can be read, got {tmp_path / name}\n"
    assert capsys.readouterr().err.endswith(told)
    assert not (tmp_path / "kept").exists()


def test_a_fuzzer_without_time_for_a_call_fails():
    """It said "0 calls", and that all was well."""
    command = [sys.executable, fuzz_ops.__file__, "--backends", "native", "--seconds", "1e-9"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout == "native: FAILED, it made no call\n", ended.stderr
    assert ended.returncode == 1
