"""The charts of a panel's curves, and their place in the HTML page."""

import re
from pathlib import Path

import pytest

from napo_bench.report.curves import HEIGHT, WIDTH, chart
from napo_bench.report.explorer import to_html
from napo_bench.report.panel import panels
from napo_bench.report.runs import NamedRun
from napo_bench.runs.panel.rows import Curve
from napo_bench.runs.result import RunResult

REPOSITORY = Path(__file__).parents[2]


def test_a_chart_places_each_point_by_its_value():
    drawn = chart(Curve("CHAIR", "words", (5, 20), (10.0, 40.0), (0.0, 20.0)))
    assert drawn.baseline == f"{WIDTH / 4:.1f},{HEIGHT * 0.75:.1f} {WIDTH:.1f},0.0"
    assert drawn.candidate == f"{WIDTH / 4:.1f},{HEIGHT:.1f} {WIDTH:.1f},{HEIGHT / 2:.1f}"


@pytest.mark.parametrize("highest", [1, 3, 7, 12, 40, 99.9, 250, 1e6])
def test_the_marks_of_an_axis_are_round_few_and_inside_it(highest):
    up = chart(Curve("Cover", "mentions", (1, 2), (0.0, highest), (0.0, 0.0))).up
    assert 2 <= len(up) <= 5
    assert all(0 <= tick.place <= HEIGHT for tick in up)
    assert all(re.fullmatch(r"0|[1-9]0*|[1-9]\.?\d*e\+\d+", tick.label) for tick in up[:2])


def test_a_curve_that_is_0_everywhere_is_drawn_at_the_bottom():
    drawn = chart(Curve("CHAIR", "words", (1, 2), (0.0, 0.0), (0.0, 0.0)))
    assert {point.split(",")[1] for point in drawn.baseline.split()} == {f"{HEIGHT:.1f}"}


def test_the_page_draws_the_curves_of_each_benchmark_with_captions():
    run = RunResult.load(REPOSITORY / "results/micro")
    runs = [NamedRun(name, run, None, [], None) for name in ("base", "<b>same</b>")]
    page = to_html(runs, [], [], panels=panels(runs), tell=lambda _: None)
    assert page.count('<div class="curves">') == 2
    for unit in ("words", "mentions"):
        assert page.count(f'aria-label="CHAIR over the first {unit} of captions"') == 2
    assert len(re.findall(r'<polyline class="line candidate" points="[\d., ]+"/>', page)) == 8
    assert "<b>same</b>" not in page
