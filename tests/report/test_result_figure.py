"""What the figure and the page of one result show."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from browser import open_browser, requests_of
from scipy import stats

import zo_bilevel as zb

pytest.importorskip("matplotlib", reason="needs the extra plot")
TIMES = np.linspace(0.0, 3.0, 25)
DESIGN = np.stack([np.ones(25), TIMES], axis=1)


def line(phi):
    return DESIGN @ np.array([phi["a"], phi["b"]])


@pytest.fixture(scope="module")
def fit():
    target = line({"a": 1.0, "b": -2.0}) + np.random.default_rng(0).normal(0, 0.1, 25)
    target[4] = np.nan
    problem = zb.Problem(
        zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9)), line, zb.SquaredError(target, weights=4.0)
    )
    return zb.minimize(problem, max_solves=30)


def panels_of(figure):
    return {panel.get_title(): panel for panel in figure.axes if panel.get_title()}


def band_of(panel, label):
    band = next(part for part in panel.collections if part.get_label() == label)
    return np.unique(band.get_paths()[0].vertices, axis=0)


class TestFigure:
    def test_a_fit_shows_data_residuals_convergence_errors_and_correlations(self, fit):
        panels = panels_of(fit.plot(x=TIMES))
        assert list(panels) == [
            "Data and fit",
            "Residuals",
            "Convergence",
            "Parameters, 95 % intervals",
            "Correlations",
        ]
        data, fitted = panels["Data and fit"].get_lines()
        used = np.arange(25) != 4
        np.testing.assert_array_equal(data.get_xdata(), TIMES[used])
        np.testing.assert_array_equal(data.get_ydata(), fit.objective.target[used])
        np.testing.assert_array_equal(fitted.get_ydata(), fit.theta)
        best = panels["Convergence"].get_lines()[1].get_ydata()
        assert best[-1] == fit.loss

    def test_residuals_are_in_the_sigma_given(self):
        target = line({"a": 1.0, "b": -2.0}) + 0.1 * np.sin(9 * TIMES)
        target[4] = np.nan
        data = zb.SquaredError(target, sigma=0.02)
        found = zb.minimize(
            zb.Problem(zb.Space(a=zb.Real(-9, 9), b=zb.Real(-9, 9)), line, data), max_solves=20
        )
        panel = panels_of(found.plot(x=TIMES))["Residuals"]
        (drawn,) = (part for part in panel.lines if len(part.get_ydata()) == 25)
        np.testing.assert_allclose(drawn.get_ydata(), (target - found.theta) / 0.02, rtol=1e-9)

    def test_bands_are_those_of_the_textbook(self, fit):
        used = np.arange(25) != 4
        design = DESIGN[used]
        residuals = (fit.objective.target - fit.theta)[used]
        variance = residuals @ residuals / 22
        inside = np.einsum("ij,jk,ik->i", design, np.linalg.inv(design.T @ design), design)
        reach = stats.t.ppf(0.975, 22) * np.sqrt(variance)
        panel = panels_of(fit.plot(x=TIMES))["Data and fit"]
        for label, half in (
            ("95 % of the fit", reach * np.sqrt(inside)),
            ("95 % of measurements", reach * np.sqrt(1 + inside)),
        ):
            corners = band_of(panel, label)
            for t, center, expected in zip(TIMES[used], fit.theta[used], half, strict=True):
                heights = corners[corners[:, 0] == t, 1]
                if heights.size:  # the gap splits the band
                    assert heights.max() == pytest.approx(center + expected, rel=1e-4)
                    assert heights.min() == pytest.approx(center - expected, rel=1e-4)

    def test_error_bars_and_correlations_are_those_of_the_uncertainty(self, fit):
        panels, known = (
            panels_of(fit.plot()),
            fit.uncertainty(zb.Problem(fit.space, line, fit.objective)),
        )
        texts = [text.get_text() for text in panels["Parameters, 95 % intervals"].texts]
        assert texts[1].startswith("b = -1.9")
        assert f"± {known.standard_error['b']:.3g}" in texts[1]
        written = [float(text.get_text()) for text in panels["Correlations"].texts]
        np.testing.assert_allclose(written, known.correlation.ravel(), atol=0.005)

    def test_named_parts_are_lines_of_their_own_at_their_own_places(self):
        def solve(phi):
            return {"near": phi["a"] * np.ones(3), "far": phi["a"] * np.arange(4.0)}

        target = {"far": np.arange(4.0), "near": np.array([1.0, 2.0, 1.5])}
        problem = zb.Problem(zb.Space(a=zb.Real(0, 3)), solve, zb.SquaredError(target))
        result = zb.minimize(problem, max_solves=9)
        x = {"near": [3.0, 1.0, 2.0], "far": [1.0, 10.0, 100.0, 1000.0]}
        panel = panels_of(result.plot(x=x))["Data and fit"]
        assert panel.get_xscale() == "log"
        lines = {line.get_label(): line for line in panel.get_lines()}
        np.testing.assert_array_equal(lines["near"].get_xdata(), [1, 2, 3])
        np.testing.assert_allclose(lines["far"].get_ydata(), result.phi["a"] * np.arange(4.0))

    def test_error_bars_that_were_paid_for_can_be_given(self, fit):
        problem = zb.Problem(fit.space, line, fit.objective)
        bare = dataclasses.replace(fit, slopes=None)
        assert "Correlations" not in panels_of(bare.plot())
        found = zb.uncertainty(problem, fit.phi)
        assert "Correlations" in panels_of(bare.plot(uncertainty=found))

    def test_a_loss_alone_shows_where_it_was_searched(self):
        space = zb.Space(u=zb.Log(0.01, 10), n=zb.Integer(0, 5), kind=zb.Choice(["x", "y"]))
        problem = zb.Problem(space, lambda p: np.log(p["u"]) ** 2 + p["n"] + (p["kind"] == "x"))
        result = zb.minimize(problem, max_solves=30)
        panels = panels_of(result.plot())
        solves = ["Solves along u", "Solves along n", "Solves along kind"]
        assert list(panels) == ["Convergence", *solves, "Parameters"]
        shown = panels["Solves along n"].collections[0].get_offsets()[:, 0]
        assert sorted(shown) == sorted(record.phi["n"] for record in result.history)

    def test_a_field_and_failed_solves_are_drawn(self):
        def solve(phi):
            if phi["f"][0] > 0.4:
                raise RuntimeError("too much")
            return phi["f"] ** 2

        space = zb.Space(f=zb.Real(-1, 1, shape=(20,)))
        problem = zb.Problem(space, solve, zb.SquaredError(np.full(20, 0.3)))
        result = zb.minimize(problem, zb.RandomSearch(), max_solves=12)
        panels = panels_of(result.plot())
        assert panels["Parameters"].get_lines()[0].get_ydata().size == 20
        failed = panels["Convergence"].get_lines()[-1].get_xdata()
        assert len(failed) == result.failures["failed"]

    def test_a_loaded_result_shows_what_it_has(self, fit, tmp_path):
        loaded = zb.Result.load(fit.save(tmp_path))
        assert list(panels_of(loaded.plot())) == ["Convergence", "Solves along a", "Solves along b"]

    @pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
    def test_the_figure_is_written_and_given_back(self, fit, tmp_path, suffix):
        file = tmp_path / f"found.{suffix}"
        figure = fit.plot(file)
        assert file.stat().st_size > 1000
        assert figure.axes

    def test_bad_input_is_refused_by_name(self, fit):
        with pytest.raises(
            zb.InputError, match=r"x must be one number or have the shape of target, shape \(25,\)"
        ):
            fit.plot(x=[1, 2, 3])
        with pytest.raises(zb.InputError, match=r"plot must end in .*gif"):
            fit.plot("found.gif")


class TestPage:
    def test_the_page_holds_the_numbers_and_asks_for_nothing(self, fit, tmp_path):
        pytest.importorskip("jinja2")
        text = fit.to_html(tmp_path / "found.html", x=TIMES).read_text()
        assert "22 degrees of freedom" in text
        assert re.search(r"<td>-1\.9\d+</td>", text)
        assert "correlations" in text
        assert "<script" not in text
        assert not re.search(r"(src|href)=\"(?!data:)", text)

    def test_warnings_stand_at_the_top(self, fit, tmp_path):
        pytest.importorskip("jinja2")
        said = dataclasses.replace(fit, warnings=("on a bound: <a>",))
        text = said.to_html(tmp_path / "found.html").read_text()
        assert '<p class="warning">on a bound: &lt;a&gt;</p>' in text
        with pytest.raises(zb.InputError, match=r"must end in \.html"):
            fit.to_html(tmp_path / "found.txt")

    def test_a_browser_draws_it(self, fit, tmp_path):
        pytest.importorskip("jinja2")
        page = fit.to_html(tmp_path / "found.html", x=TIMES)
        with open_browser(tmp_path / "profile") as browser:
            browser.get(page.as_uri())
            width = browser.execute_script("return document.images[0].naturalWidth")
            assert width > 600
            assert browser.get_log("browser") == []
            outside = [url for url in requests_of(browser) if url.startswith("http")]
            assert outside == []


def test_data_and_fit_of_the_best_run_are_on_the_page(tmp_path):
    times = np.linspace(0, 3, 9)
    problem = zb.Problem(
        zb.Space(a=zb.Real(0, 4)), lambda p: p["a"] * times, zb.SquaredError(2.0 * times)
    )
    methods = {"default": zb.DefaultMethod(), "random": zb.RandomSearch()}
    found = zb.compare(problem, methods, max_solves=9, seeds=range(2))
    assert found.best.loss == min(run.loss for run in found.runs)
    assert "best" not in found.to_dict()
    page = found.to_html(tmp_path / "page.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 1
    other = zb.compare(zb.Problem(problem.space, lambda p: p["a"] ** 2), methods, max_solves=4)
    page = other.to_html(tmp_path / "page.html").read_text()
    assert "data:image/svg+xml;base64," not in page


def test_solves_that_break_constraints_are_marked_and_tied_parameters_drawn_nowhere():
    space = zb.Space(a=zb.Log(0.1, 4), b=zb.Tied("2 * a"), c=0.5)
    problem = zb.Problem(
        space,
        lambda p: {"mass": p["b"], "stress": 1 / p["a"]},
        lambda theta, phi: theta["mass"],
        constraints=[zb.Output("stress <= 2")],
    )
    result = zb.minimize(problem, max_solves=20)
    panels = {panel.get_title(): panel for panel in result.plot().axes}
    labels = panels["Convergence"].get_legend_handles_labels()[1]
    assert labels == ["solves", "break constraints", "best so far"]
    assert "Solves along a" in panels
    assert "Solves along b" not in panels
