# SPDX-License-Identifier: BSD-3-Clause
"""Each example, run as a user runs it; what it prints and draws is checked, not only that it ends.

The StyleGAN2 has tests of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def run(*arguments, cwd) -> subprocess.CompletedProcess:
    """``python -m examples.NAME ...`` in ``cwd``, warnings as errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    command = [sys.executable, "-W", "error", "-m", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


def output(*arguments, cwd) -> str:
    result = run(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart_prints_every_shape(tmp_path):
    lines = [
        line.split(maxsplit=1) for line in output("examples.quickstart", cwd=tmp_path).splitlines()
    ]
    assert lines == [
        ["UpFirDnDownsample", "[4, 3, 32, 24]"],
        ["UpFirDnSmooth", "[4, 3, 33, 25]"],
        ["Conv2d", "[4, 16, 16, 12]"],
        ["LeakyReLU", "[4, 16, 16, 12]"],
        ["UpFirDnUpsample", "[4, 16, 32, 24]"],
        ["UpFirDnUpsample", "[4, 16, 64, 48]"],
        ["gradient", "[4, 3, 64, 48]"],
    ]


def test_quickstart_stays_short():
    source = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8").splitlines()
    code = [line for line in source if line and not line.startswith(("#", '"""'))]
    assert len(code) <= 25


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The printed energies {filter: (kept, predicted, aliased, predicted)} and the picture."""
    folder = tmp_path_factory.mktemp("zone_plate")
    text = output("examples.zone_plate", "--out", folder / "new" / "plate.png", cwd=folder)
    row = r"^(.+?) +\d+ +([\d.]+) \(([\d.]+)\) +([\d.]+) \(([\d.]+)\)$"
    energies = {
        name: tuple(map(float, numbers)) for name, *numbers in re.findall(row, text, re.MULTILINE)
    }
    with Image.open(folder / "new" / "plate.png") as image:
        return energies, np.asarray(image.convert("RGB"), dtype=np.float64)


class TestZonePlate:
    def test_names(self, drawn):
        energies, _ = drawn
        assert list(energies) == [
            "stride 2, no filter",
            "average of 2 x 2",
            "[1, 3, 3, 1]",
            "lanczos3",
            "designed low-pass",
        ]

    def test_measured_is_what_the_frequency_response_predicts(self, drawn):
        for name, (kept, kept_predicted, aliased, aliased_predicted) in drawn[0].items():
            assert kept == pytest.approx(kept_predicted, abs=0.5), name
            assert aliased == pytest.approx(aliased_predicted, abs=0.15), name

    def test_stride_aliases_everything_and_filters_next_to_nothing(self, drawn):
        aliased = {name: values[2] for name, values in drawn[0].items()}
        assert aliased["stride 2, no filter"] > 99
        assert 10 < aliased["average of 2 x 2"] < 12
        assert aliased["[1, 3, 3, 1]"] < 1
        assert aliased["lanczos3"] < 2
        assert aliased["designed low-pass"] < 0.05

    def test_filters_keep_what_may_stay(self, drawn):
        kept = {name: values[0] for name, values in drawn[0].items()}
        assert kept["stride 2, no filter"] > 99
        assert kept["[1, 3, 3, 1]"] > 35
        assert kept["designed low-pass"] > 55
        assert kept["lanczos3"] > 75

    def test_picture_shows_it(self, drawn):
        """Panels stand where the layout puts them; their corners are empty but for stride 2."""
        _, picture = drawn
        assert picture.shape == (2020, 1832, 3)
        contrast = {}
        for name, (x, y) in {
            "plate": (46, 152),
            "stride 2, no filter": (342, 152),
            "average of 2 x 2": (638, 152),
            "[1, 3, 3, 1]": (46, 604),
            "lanczos3": (342, 604),
            "designed low-pass": (638, 604),
        }.items():
            panel = picture[2 * y : 2 * y + 512, 2 * x : 2 * x + 512]
            assert panel[200:312, 200:312].std() > 60, f"{name}: the low frequencies are gone"
            contrast[name] = panel[4:80, 4:80].std()
        assert contrast.pop("plate") > 60
        assert contrast.pop("stride 2, no filter") > 60
        assert max(contrast.values()) < 15
        assert contrast["designed low-pass"] < 2

    def test_the_picture_in_the_docs_is_this_one(self, drawn):
        """Same size, same content but for fonts and anti-aliasing."""
        with Image.open(ROOT / "docs" / "images" / "zone_plate-light.png") as image:
            committed = np.asarray(image.convert("RGB"), dtype=np.float64)
        assert committed.shape == drawn[1].shape
        assert np.abs(committed - drawn[1]).mean() < 5


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    small = ("examples.antialiased_cnn", "--seeds", 2, "--epochs", 5, "--pairs", 1)
    return output(*small, cwd=tmp_path_factory.mktemp("antialiased_cnn"))


class TestAntialiasedCnn:
    @staticmethod
    def rows(text):
        """{network: [(mean, deviation) of each column]} of both tables."""
        found = {"strided convolution": [], "UpFirDnDownsample": []}
        for name, values in found.items():
            for line in text.splitlines():
                if line.startswith(name):
                    cells = re.findall(r"(\d+\.\d) ± (\d+\.\d)", line)
                    values += [(float(mean), float(spread)) for mean, spread in cells]
        return found

    def test_every_number_is_printed_for_both(self, printed):
        for values in self.rows(printed).values():
            assert len(values) == 4 + 4
            *shares, change = values[:4]
            assert all(0 <= mean <= 100 for mean, _ in [*shares, *values[4:]])
            assert change[0] > 0
            assert any(spread > 0 for _, spread in values)  # the seeds differ

    def test_both_learn_and_the_filter_steadies(self, printed):
        strided, filtered = self.rows(printed).values()
        assert min(strided[0][0], filtered[0][0]) > 85  # accuracy; chance is 10
        assert filtered[2][0] > strided[2][0] + 15  # consistency
        assert filtered[3][0] < strided[3][0]  # change of the logits

    def test_the_verdict_follows_from_the_table(self, printed):
        strided, filtered = self.rows(printed).values()
        verdict = re.search(r"seed by seed: ([+-][\d.]+) points .*; higher in (\d) of 2\.", printed)
        assert float(verdict[1]) == pytest.approx(
            filtered[2][0] - strided[2][0], abs=0.16
        )  # three roundings
        assert verdict[2] == "2"

    def test_same_seeds_same_numbers(self, tmp_path):
        least = ("examples.antialiased_cnn", "--seeds", 1, "--epochs", 1, "--pairs", 1)
        assert output(*least, cwd=tmp_path) == output(*least, cwd=tmp_path)
        assert not list(tmp_path.iterdir())  # it writes no file

    def test_nothing_to_do_is_an_error(self, tmp_path):
        result = run("examples.antialiased_cnn", "--epochs", 0, cwd=tmp_path)
        assert result.returncode == 2
        assert "--seeds, --epochs and --pairs must be >= 1" in result.stderr
