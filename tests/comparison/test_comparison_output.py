"""What a comparison says: statistics by hand, tables, JSON, figures."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zo_bilevel as zb
from zo_bilevel.comparison.summaries import Reached, quantile, summarize
from zo_bilevel.methods.names import MissingMethod
from zo_bilevel.report.figures import comparison_figure
from zo_bilevel.run.runs import Improvement, Run, Target
from zo_bilevel.support.errors import InputError, MissingPackageError
from zo_bilevel.support.json_data import to_plain

TRUE_RATE = 0.3


def improvements(*pairs):
    return tuple(Improvement(solve, solve, 0.1 * solve, loss) for solve, loss in pairs)


def made_run(method="a", seed=0, steps=((1, 1.0),), solves=10):
    return Run(
        method,
        seed,
        loss=steps[-1][1],
        solves=solves,
        rounds=solves,
        phi={"rate": 1.0},
        improvements=improvements(*steps),
    )


class TestStatistics:
    @pytest.mark.parametrize("share", [0.0, 0.25, 0.4, 0.5, 0.75, 1.0])
    def test_quantiles_of_finite_values_are_those_of_numpy(self, share):
        values = [3.0, -1.0, 7.5, 2.0, 2.0, 11.0]
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))

    def test_a_run_that_never_arrived_counts_in_the_median(self):
        assert str(Reached((14.0, 20.0, 9.0, math.inf, 11.0), 80)) == "14 (4/5)"
        assert str(Reached((14.0, math.inf, math.inf), 80)) == ">80 (1/3)"
        assert str(Reached((14.0, math.inf), 80)) == ">80 (1/2)"

    def test_a_summary_by_hand(self):
        runs = [
            made_run(seed=0, steps=((1, 1.0), (4, 0.1))),
            made_run(seed=1, steps=((1, 2.0), (6, 0.3))),
            made_run(seed=2, steps=((1, 3.0), (9, 0.2))),
        ]
        summary = summarize("a", runs, 10, Target("loss", 0.25))
        assert summary.loss == pytest.approx((0.15, 0.2, 0.25))
        assert str(summary.to_target) == "9 (2/3)"
        assert summary.relative_error is None

    def test_methods_are_ranked_by_solves_to_the_target_and_then_by_loss(self):
        runs = [
            made_run("slow", steps=((1, 1.0), (9, 0.01))),
            made_run("fast", steps=((1, 1.0), (3, 0.1))),
            made_run("never", steps=((1, 0.5),)),
        ]
        found = zb.Comparison(
            "p", ("never", "slow", "fast"), (0,), 10, tuple(runs), Target("loss", 0.1)
        )
        assert [s.method for s in found.summaries()] == ["fast", "slow", "never"]

    def test_losses_that_differ_by_rounding_are_level_and_fewer_solves_decide(self):
        steps = {"long": 1.1829718855940012, "short": 1.182971885594184, "worse": 1.18297189}
        runs = [
            made_run(name, seed, ((1, loss),), 6 if name == "short" else 9)
            for name, loss in steps.items()
            for seed in range(5)
        ]
        found = zb.Comparison("p", tuple(steps), tuple(range(5)), 10, tuple(runs))
        assert [s.method for s in found.summaries()] == ["short", "long", "worse"]
        text = " ".join(found.table().split())
        assert "short found the lowest loss: 1.18 in the median after at most 6 solves" in text
        assert "As low: long, after 9 solves in the median." in text

    def test_the_curve_is_a_step_function_up_to_the_end_of_the_run(self):
        run = made_run(steps=((1, 1.0), (4, 0.1)), solves=10)
        assert run.curve() == ([1.0, 4.0, 10.0], [1.0, 0.1, 0.1])


@pytest.fixture(scope="module")
def comparison():
    """A rate from 8 values, by two methods and one that is not installed."""
    times = np.linspace(0, 1, 8)
    task = zb.Task(
        "decay",
        "a rate from 8 values",
        zb.Problem(
            zb.Space(rate=zb.Log(1e-3, 10.0)),
            lambda phi: np.exp(-phi["rate"] * times),
            zb.SquaredError(np.exp(-TRUE_RATE * times)),
        ),
        start=lambda seed: {"rate": float(np.random.default_rng(seed).uniform(0.1, 10))},
        truth={"rate": TRUE_RATE},
        error=lambda phi: abs(phi["rate"] - TRUE_RATE) / TRUE_RATE,
        target_error=0.05,
    )
    methods = {
        "adam": zb.GradientMethod(),
        "random": zb.RandomSearch(),
        "absent-method": MissingMethod(
            "absent-method", MissingPackageError("pip install it " * 20)
        ),
    }
    return zb.compare(task, methods, max_solves=15, seeds=range(3))


class TestOutput:
    def test_the_table_fits_100_columns_and_its_numbers_are_those_of_the_runs(self, comparison):
        table = comparison.table()
        assert max(map(len, table.splitlines())) <= 100
        median = np.median([run.loss for run in comparison.runs_of("random")])
        assert f"{median:.3g}"[:4] in table
        assert "fewer than 5 seeds: no conclusion follows" in table

    def test_a_table_of_long_names_still_fits_and_cuts_no_number(self):
        labels = tuple(f"{k}-a-very-long-label-of-a-method-with-options" for k in range(3))
        runs = tuple(made_run(label, seed) for label in labels for seed in range(2))
        found = zb.Comparison("p", labels, (0, 1), 10, runs, Target("loss", 1e-9), round_width=4)
        table = found.table()
        assert max(map(len, table.splitlines())) <= 100
        assert table.count(">10 (0/2)") == 3

    def test_json_is_strict_and_holds_every_run(self, comparison):
        plain = json.loads(comparison.to_json(), parse_constant=pytest.fail)
        assert [len(plain["runs"]), len(plain["summaries"])] == [9, 3]
        assert plain["runs"][2]["loss"] is None
        assert plain["target"] == {"quantity": "relative error", "level": 0.05}
        first = plain["runs"][0]["improvements"][0]
        assert set(first) == {
            "solve",
            "round",
            "seconds",
            "loss",
            "relative_error",
            "values",
            "judged_loss",
        }

    def test_markdown_has_one_row_for_each_method(self, comparison):
        lines = [k for k in comparison.to_markdown().splitlines() if k.startswith("|")]
        assert len(lines) == 2 + 3
        assert len({line.count("|") for line in lines}) == 1

    def test_plain_data_of_odd_values(self):
        value = {"a": np.array([1, 2]), "b": (math.inf, np.float32(0.5)), "c": 3j, 4: {5}}
        assert to_plain(value) == {"a": [1, 2], "b": [None, 0.5], "c": "3j", "4": [5]}


class TestPlot:
    def test_both_panels_show_the_medians_of_every_method(self, comparison):
        figure = comparison_figure(comparison)
        loss, rate = figure.axes
        assert (loss.get_xscale(), loss.get_yscale(), rate.get_yscale()) == ("log",) * 3
        curves = {line.get_label(): line for line in loss.lines}
        last = np.median([run.loss for run in comparison.runs_of("random")])
        assert curves["random"].get_ydata()[-1] == pytest.approx(last)
        assert curves["random"].get_xdata()[-1] == 15
        assert len(loss.collections) == 2  # a band for each method that found something
        assert len({(k.get_color(), str(k.get_linestyle())) for k in curves.values()}) == 3
        truth = next(line for line in rate.lines if line.get_label().startswith("_"))
        assert set(truth.get_ydata()) == {TRUE_RATE}
        assert "absent-method (no result)" in curves

    def test_many_parameters_show_the_error_and_the_target(self):
        space = zb.Space(a=zb.Real(-1, 1, shape=(4,)))
        problem = zb.Problem(space, lambda phi: phi["a"], zb.SquaredError(np.full(4, 0.5)))
        task = zb.Task(
            "field", "", problem, error=lambda phi: np.linalg.norm(phi["a"] - 0.5), target_error=0.2
        )
        found = zb.compare(task, {"r": zb.RandomSearch()}, max_solves=5, seeds=range(2))
        _, error = comparison_figure(found).axes
        assert error.get_ylabel() == "relative error of the parameters, %"
        assert [text.get_text() for text in error.texts] == ["target 20 %"]

    @pytest.mark.parametrize(("offset", "scale"), [(0.0, "log"), (-1.0, "linear")])
    def test_zero_and_negative_losses_can_be_drawn(self, tmp_path, offset, scale):
        runs = (made_run(steps=((1, 1.0), (3, 0.5), (5, offset))),)
        found = zb.Comparison("p", ("a",), (0,), 10, runs)
        assert comparison_figure(found).axes[0].get_yscale() == scale
        found.plot(tmp_path / "found.png")

    @pytest.mark.parametrize(
        ("suffix", "magic"), [("png", b"\x89PNG\r\n"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
    )
    def test_the_suffix_tells_the_format(self, comparison, tmp_path, suffix, magic):
        path = comparison.plot(tmp_path / f"found.{suffix}")
        assert path.read_bytes().startswith(magic)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("found.gif", r"plot must end in .pdf, .png, .svg, got '.*found.gif'"),
            ("nowhere/found.png", "plot must lie in a folder that exists"),
        ],
    )
    def test_a_path_that_cannot_be_written_is_refused(self, comparison, tmp_path, name, message):
        with pytest.raises(InputError, match=message):
            comparison.plot(tmp_path / name)

    def test_nothing_found_is_nothing_to_plot(self, tmp_path):
        found = zb.Comparison("p", ("a",), (0,), 10, (Run("a", 0, "refused", error="no"),))
        with pytest.raises(InputError, match="nothing to plot: no run on p found anything"):
            found.plot(tmp_path / "found.png")

    def test_without_matplotlib_the_extra_is_named(self, comparison, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingPackageError, match=r'pip install "zo-bilevel\[plot\]"'):
            comparison.plot(tmp_path / "found.png")

    def test_pyplot_and_its_global_state_are_never_loaded(self, tmp_path):
        program = (
            "import sys, zo_bilevel as zb;"
            "p = zb.Problem(zb.Space(a=zb.Real(0, 1)), lambda phi: phi['a']);"
            "zb.compare(p, {'r': zb.RandomSearch()}, max_solves=3, seeds=[0])"
            f".plot({str(tmp_path / 'found.png')!r});"
            "sys.exit('matplotlib.pyplot' in sys.modules)"
        )
        root = str(Path(zb.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": root}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
