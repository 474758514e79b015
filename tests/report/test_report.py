"""The report: what the page holds, and that a real browser shows it without a network."""

from __future__ import annotations

import html
import json
import re
import sys
import time

import numpy as np
import pytest
from browser import open_browser, prefer, requests_of, resize, screenshot
from click.testing import CliRunner

import zo_bilevel as zb
from zo_bilevel.cli.main import main
from zo_bilevel.comparison.provenance import command_line, environment
from zo_bilevel.report.page import render_report, write_report
from zo_bilevel.report.sections import section_of
from zo_bilevel.report.suite import overview_of
from zo_bilevel.run.runs import Improvement, Run, Target
from zo_bilevel.support.errors import InputError, MissingPackageError

plotly = pytest.importorskip("plotly", reason="needs the extra report")
pytest.importorskip("jinja2", reason="needs the extra report")

TRUE_FIELD = np.sin(np.linspace(0, 3, 12))
METHODS = ("gn", "cma", "zo-adam", "cobyla", "de", "one", "pso", "random", "bfgs", "tr")
SIGNS = ("<script>alert(1)</script>", "</script><b>")


def made_comparison(num_methods=4, num_seeds=5, steps=25, name="field", **facts):
    """Runs as methods make them, out of random numbers."""
    rng = np.random.default_rng(7)
    runs = []
    for seed in range(num_seeds):
        for rank, method in enumerate(METHODS[:num_methods]):
            losses = 10.0 ** -np.sort(rng.uniform(0, 6 - 0.5 * rank, steps))
            at = np.sort(rng.choice(np.arange(1, 200), steps, replace=False))
            improvements = tuple(
                Improvement(int(a), int(a) // 4 + 1, 0.01 * a, float(v), v**0.5, {"rate": 1 + v})
                for a, v in zip(at, losses, strict=True)
            )
            phi = {"rate": 1 + losses[-1], "field": TRUE_FIELD + rng.normal(0, 0.1, 12), "k": "b"}
            last = float(losses[-1])
            runs.append(
                Run(
                    method=method,
                    seed=seed,
                    loss=last,
                    solves=200,
                    rounds=50,
                    seconds=2.0,
                    stop_reason="budget of 200 solves spent",
                    failures={"failed": 2, "timed_out": 1} if rank == 1 else {},
                    phi=phi,
                    relative_error=last**0.5,
                    improvements=improvements,
                )
            )
    return zb.Comparison(
        problem=name,
        methods=METHODS[:num_methods],
        seeds=tuple(range(num_seeds)),
        max_solves=200,
        runs=tuple(runs),
        target=Target("loss", 1e-4),
        truth={"rate": 1.0, "field": TRUE_FIELD, "k": "b"},
        round_width=4,
        dispatcher="Joblib(4)",
        size=13,
        facts=environment(["compare", "mine.py", "--set", "url=http://me:word@host"]),
        **facts,
    )


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text.group(1), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def page():
    return render_report([made_comparison()])


class TestPage:
    def test_it_is_one_file_that_asks_for_nothing(self, page):
        outside = page.replace(page[page.index("<script>") :], "")
        assert not re.findall(r'(?:src|href)="(?!#|data:)', outside)
        assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page

    def test_it_says_in_words_who_was_first_and_by_which_command_it_was_made(self, page):
        words = html.unescape(page)
        assert "On field, gn was first to reach loss 0.0001" in words
        assert "zo-bilevel compare mine.py --set 'url=http://***@host'" in words
        assert "me:word" not in page
        for part in ("Ranking", "Parameters found", "Every run", "Stop reasons and failures"):
            assert part in page
        assert f"numpy {np.__version__}" in page
        assert "10 failed, 5 timed_out" in page

    def test_its_numbers_are_those_of_the_runs(self, page):
        found = made_comparison()
        charts = data_of(page)["charts"]
        line = charts["part-0-loss-solves"]["lines"][0]
        last = np.median([run.loss for run in found.runs_of("gn")])
        assert line["y"][-1] == pytest.approx(last, rel=1e-5)
        assert line["low"][-1] <= line["y"][-1] <= line["high"][-1]
        assert {"part-0-loss-rounds", "part-0-loss-seconds", "part-0-error"} <= set(charts)
        assert charts["part-0-loss-solves"]["levels"][0]["y"] == 1e-4
        reached = charts["part-0-reached-solves"]["lines"][0]["y"][-1]
        assert reached == sum(r.loss <= 1e-4 for r in found.runs_of("gn")) / 5
        field = charts["part-0-field-field"]["lines"]
        assert field[0]["method"] == "truth"
        assert field[0]["y"] == pytest.approx(TRUE_FIELD.tolist(), rel=1e-5)

    def test_every_line_is_one_that_plotly_knows_how_to_draw(self, page):
        from plotly.graph_objects import Figure, Scatter

        for chart in data_of(page)["charts"].values():
            Figure([Scatter(x=line["x"], y=line["y"]) for line in chart["lines"]])
            assert all(len(line["x"]) == len(line["y"]) for line in chart["lines"])

    def test_names_of_people_are_text_and_never_markup(self):
        run = Run(
            SIGNS[0], 0, loss=1.0, improvements=(Improvement(1, 1, 0.1, 1.0),), error=SIGNS[1]
        )
        text = render_report([zb.Comparison(SIGNS[1], (SIGNS[0],), (0,), 9, (run,))])
        assert SIGNS[0] not in text
        assert SIGNS[1] not in text
        assert data_of(text)["methods"] == [SIGNS[0]]

    def test_fewer_than_five_seeds_say_that_nothing_follows(self):
        text = render_report([made_comparison(num_seeds=3)])
        assert "With 3 seeds nothing follows" in text
        assert "Fewer than 5 seeds: nothing follows from these numbers." in text

    def test_a_suite_has_an_overview_and_a_part_for_each_problem(self):
        members = [
            made_comparison(name="one", group="vector"),
            made_comparison(name="two", group="vector"),
            made_comparison(3, name="three", group="scalar"),
        ]
        text = render_report(members, title="bench small", command="zo-bilevel bench small")
        assert text.count('<details class="part"') == 3
        assert re.search(r"vector \(2 problems\): \S+ solves the largest share", text)
        assert "zo-bilevel bench small" in text
        overview = overview_of(members)
        assert [grid.title.split(":")[0] for grid in overview.tables] == ["vector", "scalar"]
        assert [row[0] for row in overview.problems.rows] == ["one", "two", "three"]

    def test_zero_and_negative_losses_and_runs_without_any(self):
        steps = (Improvement(1, 1, 0.1, 1.0), Improvement(3, 3, 0.2, 0.0))
        runs = (Run("a", 0, loss=0.0, solves=3, improvements=steps), Run("b", 0, "failed"))
        found = zb.Comparison("p", ("a", "b"), (0,), 9, runs)
        (line,) = section_of(found, "x").charts["x-loss-solves"]["lines"]
        assert line["y"] == [1.0, 0.1]
        below = (Run("a", 0, loss=-1.0, solves=3, improvements=(Improvement(1, 1, 0.1, -1.0),)),)
        chart = section_of(zb.Comparison("p", ("a",), (0,), 9, below), "x").charts["x-loss-solves"]
        assert (chart["y"]["type"], chart["lines"][0]["y"]) == ("linear", [-1.0, -1.0])


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("found.png", r"report must end in .html, got '.*found.png'"),
            ("nowhere/found.html", "report must lie in a folder that exists"),
        ],
    )
    def test_paths(self, tmp_path, name, message):
        with pytest.raises(InputError, match=message):
            made_comparison().to_html(tmp_path / name)

    def test_nothing_to_report(self, tmp_path):
        with pytest.raises(InputError, match="there is no comparison"):
            write_report([], tmp_path / "a.html")
        with pytest.raises(InputError, match="nothing to report: p has no run"):
            zb.Comparison("p", ("a",), (0,), 9, ()).to_html(tmp_path / "a.html")

    @pytest.mark.parametrize("module", ["plotly.offline", "jinja2"])
    def test_without_a_package_the_extra_is_named(self, tmp_path, monkeypatch, module):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingPackageError, match=r'pip install "zo-bilevel\[report\]"'):
            made_comparison().to_html(tmp_path / "a.html")

    def test_the_command_line_refuses_before_the_first_solve(self, tmp_path):
        words = ["compare", "quadratic", "--methods", "random", "--report", str(tmp_path / "a.txt")]
        answer = CliRunner().invoke(main, words)
        assert answer.exit_code == 2
        assert "report must end in .html" in answer.output


def test_the_command_line_writes_the_report(tmp_path):
    path = tmp_path / "found.html"
    words = "compare quadratic --set size=3 --methods random,zo-adam --max-solves 8 --report"
    answer = CliRunner().invoke(main, [*words.split(), str(path)])
    assert answer.exit_code == 0, answer.output
    assert f"report: {path}" in answer.stderr
    text = path.read_text()
    assert "zo-bilevel compare quadratic --set size=3 --methods random,zo-adam" in text


def test_a_command_without_words_is_none():
    assert command_line([]) == ""


WIDE = "return document.documentElement.scrollWidth - innerWidth"


def wait_until(browser, script, wanted, seconds=30):
    """Ask the page until it gives what is wanted."""
    end = time.monotonic() + seconds
    while (found := browser.execute_script(script)) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    assert found == wanted


def draw_everything(browser, count):
    """Scroll past every chart, as a reader would."""
    for index in range(count):
        browser.execute_script(
            "document.querySelectorAll('.plot')[arguments[0]].scrollIntoView()", index
        )
        wait_until(
            browser, f"return document.querySelectorAll('.plot')[{index}].dataset.drawn", "yes"
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


class TestBrowser:
    def test_every_plot_is_drawn_a_run_opens_and_nothing_leaves_the_machine(
        self, browser, tmp_path
    ):
        path = made_comparison().to_html(tmp_path / "found.html")
        requests_of(browser)  # those of the browser's own first page
        browser.get(path.as_uri())
        charts = browser.execute_script("return document.querySelectorAll('.chart .plot').length")
        assert charts == 12
        draw_everything(browser, charts)
        lines = "return document.querySelectorAll('.chart .plot .js-line').length"
        assert browser.execute_script(lines) >= 4 * charts
        summary = browser.find_element("css selector", "details.group summary")
        summary.send_keys("\n")  # by the keyboard
        browser.find_element("css selector", "details.run summary").send_keys("\n")
        wait_until(browser, "return document.querySelector('.plot.small').dataset.drawn", "yes")
        opened = browser.find_element("css selector", "details.run[open]").text
        assert "budget of 200 solves spent" in opened
        assert "12 values" in opened
        assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
        own = ("data:", "chrome:")
        asked = [url for url in requests_of(browser) if not url.startswith(own)]
        assert asked == [path.as_uri()]

    def test_a_method_can_be_hidden(self, browser, tmp_path):
        browser.get(made_comparison().to_html(tmp_path / "found.html").as_uri())
        draw_everything(browser, 1)
        lines = "return document.querySelector('.chart .plot').querySelectorAll('.js-line').length"
        before = browser.execute_script(lines)
        browser.find_element("css selector", "[data-method='0']").send_keys(" ")
        wait_until(browser, lines, before * 3 / 4)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize(("width", "is_phone"), [(1280, False), (390, True)])
    def test_it_fits_every_screen_and_follows_the_colour_scheme(
        self, browser, tmp_path, scheme, width, is_phone
    ):
        resize(browser, width, 844, is_phone=is_phone)
        prefer(browser, scheme)
        browser.get(made_comparison().to_html(tmp_path / "found.html").as_uri())
        draw_everything(browser, 2)
        assert browser.execute_script(WIDE) <= 0
        back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
        screenshot(browser, tmp_path / "seen.png")
        assert (tmp_path / "seen.png").stat().st_size > 10_000

    def test_two_hundred_runs_are_drawn(self, browser, tmp_path):
        found = made_comparison(10, 20, steps=40)
        assert len(found.runs) == 200
        resize(browser, 1280, 900)
        browser.get(found.to_html(tmp_path / "found.html").as_uri())
        wait_until(browser, "return document.querySelector('.plot').dataset.drawn", "yes")
