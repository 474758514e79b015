"""Decks of fixed columns, output files of blocks, and how few digits are made up for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zo_bilevel as zb
from zo_bilevel.adapters import CommandLine, ReadColumns
from zo_bilevel.adapters.command_line.fields import TooWideError, in_columns
from zo_bilevel.support.errors import InputError, SolveError

TIMES = np.linspace(0.0, 3.0, 25)
DECAY = """
import math
line = open("deck").read()
size, rate = float(line[0:{w}]), float(line[{w}:{d}])
for k in range(25):
    print(repr(size * math.exp(-rate * k / 8)))
"""


def decay(width):
    """A program that reads two fields of a width, and nothing beside them."""
    code = DECAY.replace("{w}", str(width)).replace("{d}", str(2 * width))
    field = f"| width({width}) "
    deck = "{{ size FIELD}}{{ rate FIELD}}\n".replace("FIELD", field)
    arguments = code.replace("{", "{{").replace("}", "}}")
    return CommandLine([sys.executable, "-I", "-S", "-c", arguments], files={"deck": deck})


class TestWidth:
    @given(st.floats(-1e300, 1e300), st.integers(8, 24))
    def test_a_number_fills_its_columns_with_all_digits_that_fit(self, value, width):
        text = in_columns(value, width)
        assert len(text) == width
        assert "." in text
        room = width - len("-.e-308")
        assert float(text) == pytest.approx(value, rel=10.0 ** (1 - room), abs=0)

    def test_every_digit_is_kept_where_there_is_room(self):
        for value in (0.1, 1e-300, -123456.789, 2.0**0.5, 1e22):
            assert float(in_columns(value, 24)) == value

    def test_texts_and_whole_numbers_are_kept_whole_or_refused(self):
        assert in_columns("euler", 8) == "euler   "
        assert in_columns(12, 4) == "  12"
        for value, width in (("implicit", 4), (12345, 4), (-1.5e-12, 4)):
            with pytest.raises(TooWideError, match=f"does not fit into {width} columns"):
                in_columns(value, width)

    def test_what_would_not_fit_at_a_bound_is_refused_before_the_first_solve(self):
        solver = CommandLine(["cat", "deck"], files={"deck": "{{ rate | width(5) }}"})
        zb.Problem(zb.Space(rate=zb.Log(0.01, 10)), solver)
        with pytest.raises(InputError, match=r"lower bounds: rate: -1e-12 does not fit into 5"):
            zb.Problem(zb.Space(rate=zb.Real(-1e-12, 10)), solver)


class TestFewDigits:
    def test_the_solver_says_which_steps_are_lost(self):
        space = zb.Space(size=zb.Real(0, 6), rate=zb.Log(1e-3, 1e3))
        x = space.encode({"size": 2.0, "rate": 0.7})
        # seven digits of 2.0 in eight columns: 5e-7 of a range that is six wide
        size, rate = decay(8).input_rounding(space, x)
        assert 1e-7 < size < 1e-5
        assert 1e-7 < rate < 1e-5
        np.testing.assert_array_equal(decay(24).input_rounding(space, x), 0.0)

    @pytest.mark.parametrize("width", [8, 7])
    def test_error_bars_survive_few_digits(self, width):
        truth = 2.0 * np.exp(-0.7 * TIMES)
        target = truth + 0.02 * np.cos(9 * TIMES)
        space = zb.Space(size=zb.Real(0, 6), rate=zb.Log(0.01, 10))
        exact = zb.Problem(
            space, lambda p: p["size"] * np.exp(-p["rate"] * TIMES), zb.SquaredError(target)
        )
        coarse = zb.Problem(space, decay(width), zb.SquaredError(target))
        expected = zb.minimize(exact, max_solves=40)
        found = zb.minimize(coarse, max_solves=30, ftol=1e-6, restarts=False)
        assert found.loss == pytest.approx(expected.loss, rel=1e-4)
        errors = expected.uncertainty(exact).deviations
        known = found.uncertainty(coarse)
        np.testing.assert_allclose(known.deviations, errors, rtol=0.03)
        assert known.solves == 3  # the run saw rounded points


REPORT = """ SOLVER 3.1
 DISPLACEMENTS OF STEP 1
   node       ux
      1   1.0D-3
      2   2.5D-3

 STRESSES OF STEP 1
      1   7.0
 DISPLACEMENTS OF STEP 2
      1   3.0
"""


class TestBlocks:
    def read(self, **options):
        return CommandLine(["printf", "%s", REPORT], output=ReadColumns(**options))({})

    def test_a_block_begins_below_its_heading_and_ends_with_its_rows(self):
        first = self.read(block="DISPLACEMENTS OF STEP 1", columns=1)
        np.testing.assert_array_equal(first, [1e-3, 2.5e-3])
        np.testing.assert_array_equal(self.read(block="STRESSES", columns=(0, 1)), [[1, 7]])
        np.testing.assert_array_equal(self.read(block="STEP 2", columns=1), [3.0])

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            ("DISPLACEMENTS", "has 2 lines with 'DISPLACEMENTS', one must head the block"),
            ("FORCES", "has 0 lines with 'FORCES'"),
            ("STEP 2", "no numbers"),
        ],
    )
    def test_a_block_that_is_not_one_fails_the_solve(self, block, message):
        with pytest.raises(SolveError, match=message):
            self.read(block=block, columns=2)

    def test_several_parts_make_a_dict(self):
        parts = {
            "u": ReadColumns(block="DISPLACEMENTS OF STEP 1", columns=1),
            "s": ReadColumns(block="STRESSES", columns=1),
        }
        theta = CommandLine(["printf", "%s", REPORT], output=parts)({})
        np.testing.assert_array_equal(theta["u"], [1e-3, 2.5e-3])
        np.testing.assert_array_equal(theta["s"], [7.0])
        other = CommandLine(["printf", "%s", REPORT], output={**parts, "s": parts["u"]})
        assert other.name != CommandLine(["printf", "%s", REPORT], output=parts).name
        with pytest.raises(InputError, match="output must hold readers by name"):
            CommandLine(["true"], output={"u": 3})


def test_the_calibrated_deck_is_written_as_a_solve_would_get_it(tmp_path):
    mesh = tmp_path / "mesh.dat"
    mesh.write_text("1 2 3")
    solver = CommandLine(
        ["cat", "in/deck"], files={"in/deck": "{{ a | width(10) }} {{ seed }}"}, inputs=[mesh]
    )
    folder = solver.write({"a": 1 / 3}, tmp_path / "calibrated")
    assert (folder / "in" / "deck").read_text() == "0.33333333 0"
    assert (folder / "mesh.dat").read_text() == "1 2 3"
    with pytest.raises(SolveError, match="'b' is undefined"):
        CommandLine(["true"], files={"deck": "{{ b }}"}).write({"a": 1}, tmp_path / "other")


def test_the_first_complaint_of_a_long_log_is_in_the_message():
    words = ["begin", "*ERROR reading *ELASTIC, line 7", "  1.41421356237309D-05", *"abcdefgh"]
    script = "; ".join(f"echo '{word}'" for word in words) + "; exit 3"
    with pytest.raises(SolveError, match=r"it said: \*ERROR reading .* \| d \| e \| f \| g \| h"):
        CommandLine(["sh", "-c", script], keep_failures=0)({})


R = """values <- as.numeric(commandArgs(trailingOnly = TRUE))
cat(format(values[1] * exp(-values[2] * seq(0, 3, length.out = 25)), digits = 17), sep = "\\n")
"""
OCTAVE = """values = cellfun(@str2double, argv());
printf("%.17g\\n", values(1) * exp(-values(2) * linspace(0, 3, 25)));
"""


@pytest.mark.parametrize(
    ("program", "options", "script"),
    [("Rscript", ["--vanilla"], R), ("octave-cli", ["--norc", "--no-history"], OCTAVE)],
)
def test_scripts_of_other_languages(program, options, script, tmp_path):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    file = Path(tmp_path, "decay")
    file.write_text(script)
    theta = CommandLine([program, *options, file, "{size}", "{rate}"])({"size": 2.0, "rate": 0.7})
    np.testing.assert_allclose(theta, 2.0 * np.exp(-0.7 * TIMES), rtol=1e-14)
