"""The explorer in a real headless Chromium: filters, search, keys, marks, escaping, themes, phone, and no requests.

Needs the Python package playwright and a Chromium: one on PATH, or NAPO_BENCH_CHROMIUM.
"""

import os
import shutil

import pytest
from synthetic_runs import draw_pictures, make_run

from napo_bench.report.explorer import to_html
from napo_bench.report.figures import draw_figures
from napo_bench.report.runs import NamedRun
from napo_bench.report.table import table_1

sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

HOSTILE = "</script><script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'> a dog & a bench"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("NAPO_BENCH_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on PATH, and NAPO_BENCH_CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET), timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    draw_pictures(data, 100)
    runs = [NamedRun("base", make_run(0.4, 1, data_dir=data), None, []), NamedRun("napo", make_run(0.8, 2), None, [])]
    hostile = runs[0].run.benchmarks["amber"].samples[0]
    hostile |= {"response": HOSTILE, "hallucinated": ["bench"], "covered": ["dog"]}
    hostile |= {"thoughts": f"<think>{HOSTILE}</think>", "thought_tokens": 41}
    runs[1].run.benchmarks["vlind"].samples[0]["responses"][0] |= {"thoughts": "<think>Blue?</think>"}
    return runs


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(to_html(runs, [table_1(runs)], draw_figures(runs)))
    return path


@pytest.fixture
def page(chromium, file, request):
    """The page, freshly opened. Any request that leaves the file, and anything on the console, fails the test."""
    context = chromium.new_context(**getattr(request, "param", {"viewport": {"width": 1280, "height": 800}}))
    context.set_default_timeout(120_000)
    page = context.new_page()
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda sent: trouble.append(sent.url) if not sent.url.startswith(("file:", "data:")) else None)
    page.goto(file.as_uri())
    yield page
    assert page.evaluate("window.stolen") is None
    context.close()
    assert trouble == []


def count(page):
    return int(page.inner_text("#count").split()[0])


def title(page):
    return page.inner_text("#detail .bar b")


@pytest.fixture
def samples(page):
    page.click("#tab-samples")
    return page


def test_opens_on_the_table_with_our_rows_and_hides_intervals(page):
    assert page.is_visible("#table") and not page.is_visible("#samples")
    assert [row.inner_text() for row in page.query_selector_all(".ours th[scope=row]")] == ["base", "napo"]
    assert not page.is_visible(".interval >> nth=0")
    page.check("#intervals")
    assert page.is_visible(".interval >> nth=0")


def test_tabs_show_one_part_at_a_time_and_are_in_the_address(page):
    page.click("#tab-figures")
    assert page.is_visible("#figure-vlind-funnel svg") and not page.is_visible("#table")
    assert page.url.endswith("#figures")
    page.reload()
    assert page.is_visible("#figures")


def test_a_part_typed_into_the_address_of_the_open_page_is_shown(page):
    for part in ("samples", "table", "figures"):
        page.evaluate(f"location.hash = '{part}'")
        page.wait_for_selector(f"#{part}", state="visible")
    page.evaluate("location.hash = 'nothing'")
    page.wait_for_timeout(50)
    assert page.is_visible("#figures")


def test_thoughts_are_folded_away_with_their_number_of_tokens(samples):
    samples.select_option("#benchmark", "amber")
    folded = samples.locator("#detail .answer details")
    assert folded.locator("summary").all_inner_texts() == ["Thoughts (41 tokens)"]
    assert not folded.locator("p").is_visible()
    folded.locator("summary").click()
    assert folded.locator("p").inner_text() == f"<think>{HOSTILE}</think>"
    samples.select_option("#benchmark", "vlind")
    folded = samples.locator("#detail td details")
    assert folded.locator("summary").all_inner_texts() == ["Thoughts (number of tokens unknown)"]
    assert not folded.locator("p").is_visible()


def test_all_samples_are_listed_and_only_those_in_view_exist(samples, runs):
    total = sum(len(benchmark.samples) for benchmark in runs[0].run.benchmarks.values())
    assert count(samples) == total
    assert len(samples.query_selector_all(".row")) < 30
    samples.evaluate("document.querySelector('#list').scrollTo(0, 1e9)")
    samples.wait_for_selector(f"#row-{total - 1}")


def test_benchmark_and_concept_filters(samples):
    samples.select_option("#benchmark", "vlind")
    assert count(samples) == 60
    samples.select_option("#group", "size")
    assert count(samples) == 20 and title(samples) == "VLind-Bench size/1"
    samples.select_option("#benchmark", "mmhal")
    assert count(samples) == 96, "a concept of another benchmark must not stay chosen"
    samples.select_option("#group", "counting")
    assert count(samples) == 12


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("base wrong, napo right", lambda base, napo: not base and napo),
        ("napo wrong, base right", lambda base, napo: not napo and base),
        ("They differ", lambda base, napo: base != napo),
        ("All right", lambda base, napo: base and napo),
        ("base wrong", lambda base, napo: not base),
    ],
)
def test_outcome_filters(samples, runs, label, wanted):
    ratings = [[sample["rating"] >= 3 for sample in run.run.benchmarks["mmhal"].samples] for run in runs]
    samples.select_option("#benchmark", "mmhal")
    samples.select_option("#outcome", label=label)
    assert count(samples) == sum(wanted(base, napo) for base, napo in zip(*ratings, strict=True)) > 0


def test_search_reads_prompts_and_answers_and_marks_what_it_finds(samples):
    samples.fill("#search", "PICTURE 17?")
    assert title(samples) == "MMHal-Bench 17" and count(samples) == 1
    assert samples.inner_text(".prompt mark.found >> nth=0") == "picture"
    samples.fill("#search", "1003 shows")
    assert title(samples) == "Object HalBench 1003"
    samples.fill("#search", "nothing says this")
    assert count(samples) == 0 and "Press x" in samples.inner_text("#detail")


def test_keys(samples):
    first = title(samples)
    samples.keyboard.press("j")
    samples.keyboard.press("ArrowDown")
    assert samples.inner_text("#detail .bar").startswith("VLind-Bench location/2")
    samples.keyboard.press("k")
    samples.keyboard.press("Home")
    assert title(samples) == first
    samples.keyboard.press("End")
    assert title(samples) == "MMHal-Bench 95"
    samples.keyboard.press("/")
    samples.keyboard.type("j/x")
    assert samples.input_value("#search") == "j/x" and count(samples) == 0
    samples.keyboard.press("Escape")
    samples.keyboard.press("x")
    assert samples.input_value("#search") == "" and count(samples) > 0
    samples.keyboard.press("b")
    assert samples.input_value("#benchmark") == "vlind"
    samples.keyboard.press("o")
    assert samples.input_value("#outcome") == "1"
    samples.keyboard.press("1")
    assert samples.is_visible("#table")
    samples.keyboard.press("?")
    assert samples.is_visible("#help")
    samples.keyboard.press("Escape")
    assert not samples.is_visible("#help")


def test_a_click_in_the_list_opens_that_sample(samples):
    samples.click("#row-4")
    assert title(samples) == "VLind-Bench size/4"
    assert samples.get_attribute("#row-4", "aria-selected") == "true"


def test_model_text_is_shown_as_text_with_its_words_marked(samples):
    samples.select_option("#benchmark", "amber")
    samples.keyboard.press("Home")
    assert samples.inner_text(".answer >> nth=0").count(HOSTILE) == 1
    assert samples.query_selector_all(".answer img, .answer script") == []
    assert samples.inner_text(".answer:first-child mark.bad") == "bench"
    assert samples.inner_text(".answer:first-child mark.ok") == "dog"


def test_hallucinated_and_covered_words_are_marked_in_each_runs_answer(samples, runs):
    samples.select_option("#benchmark", "amber")
    for index in (1, 2, 7):
        samples.fill("#search", f"item {index + 1} has")
        for number, run in enumerate(runs):
            sample = run.run.benchmarks["amber"].samples[index]
            for kind, words in (("bad", sample["hallucinated"]), ("ok", sample["covered"])):
                marks = samples.query_selector_all(f".answer:nth-child({number + 1}) p mark.{kind}")
                assert [mark.inner_text() for mark in marks] == words


def test_wrong_answers_of_vlind_are_marked_test_by_test(samples, runs):
    samples.select_option("#benchmark", "vlind")
    shown = [mark.inner_text() for mark in samples.query_selector_all(".test td mark")]
    pairs = [run.run.benchmarks["vlind"].samples[0]["responses"] for run in runs]
    expected = [f"{'✓' if one['correct'] else '✗'} {one['text']}" for both in zip(*pairs, strict=True) for one in both]
    assert shown == expected


def test_pictures_are_shown(samples):
    samples.select_option("#benchmark", "amber")
    # `decode` waits for the picture. Waiting for an expression would need `eval`, which the page forbids.
    assert samples.eval_on_selector(".question img", "image => image.decode().then(() => image.naturalWidth)") > 0


def test_filters_answer_within_100_milliseconds(samples):
    """The best of five times of each search, as other processes may hold this one up."""
    milliseconds = samples.evaluate(
        """() => {
          const search = document.querySelector("#search");
          const time = (text) => {
            const began = performance.now();
            search.value = text;
            search.dispatchEvent(new Event("input"));
            document.querySelector("#detail").getBoundingClientRect();
            return performance.now() - began;
          };
          return Math.max(...["thing", "thing 4", "item", "zzz", ""].map((text) =>
            Math.min(...[1, 2, 3, 4, 5].map(() => time(text)))));
        }"""
    )
    assert milliseconds < 100


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_dark_as_the_system_wishes_and_light_on_request(page):
    assert background(page) == "rgb(20, 23, 28)"
    page.click("#theme")
    assert background(page) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_on_a_phone_the_list_gives_way_to_the_sample_and_nothing_overflows(page):
    page.click("#tab-samples")
    assert page.is_visible("#list") and not page.is_visible("#detail")
    page.click("#row-2")
    assert page.is_visible("#detail") and not page.is_visible("#list")
    for tab in ("#tab-samples", "#tab-table", "#tab-figures"):
        page.click(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#tab-samples")
    page.click(".back")
    assert page.is_visible("#list")


def is_faded(page, frame):
    """Whether the right edge of a frame has its fade."""
    return page.evaluate(f"getComputedStyle(document.querySelector('{frame}'), '::after').content") == '""'


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_on_a_phone_what_is_wider_says_so_and_keeps_the_models_in_view(page):
    for tab, frame, hint in (
        ("#tab-table", "figure.table .frame", "scroll sideways"),
        ("#tab-figures", "#figure-vlind-funnel .frame", "scroll sideways"),
    ):
        page.click(tab)
        page.wait_for_selector(f"{frame} .hint", state="visible")
        assert hint in page.inner_text(f"{frame} .hint") and is_faded(page, frame)
        page.evaluate(f"document.querySelector('{frame} .scroll').scrollTo(1e6, 0)")
        page.wait_for_selector(f"{frame}:not(.more)")
        assert not is_faded(page, frame)
    page.click("#tab-table")
    assert page.locator(".ours th[scope=row]").first.bounding_box()["x"] >= 0
    smallest = page.evaluate(
        """() => { document.querySelector("#tab-figures").click();
          return Math.min(...[...document.querySelectorAll("#figures svg text")].map((text) =>
            parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a)) }"""
    )
    assert smallest >= 10


def test_a_table_that_fits_has_no_hint(page):
    assert not page.is_visible("figure.table .hint") and not is_faded(page, "figure.table .frame")
    assert page.is_visible("figure.table table")


NAMES = [
    *(f"run-{index}" for index in range(9)),
    HOSTILE,
    "a_label_without_a_space_" * 9,
    "a label that goes on and on " * 9,
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of twelve runs, three with names that do not fit or try to be markup."""
    sizes = {"vlind": 6, "object_halbench": 4, "amber": 6, "mmhal": 4}
    runs = [NamedRun(name, make_run(0.5, seed, sizes=sizes), None, []) for seed, name in enumerate(NAMES)]
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(to_html(runs, [table_1(runs)], draw_figures(runs)))
    return path


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": width, "height": 844}} for width in (390, 1280)], indirect=True, ids=str
)
def test_twelve_runs_with_hostile_names_are_text_and_nothing_overflows(page, hostile):
    page.goto(hostile.as_uri())
    names = [" ".join(name.split()) for name in NAMES]
    assert [" ".join(row.inner_text().split()) for row in page.query_selector_all(".ours th[scope=row]")] == names
    table = page.locator("figure.table .scroll").bounding_box()["width"]
    assert all(row.bounding_box()["width"] < table / 2 for row in page.query_selector_all(".ours th[scope=row]"))
    page.click("#tab-samples")
    page.click("#row-2")
    for benchmark in ("vlind", "amber"):
        page.select_option("#benchmark", benchmark)
        if page.is_visible("#list"):
            page.click("#row-0")
            assert page.evaluate("document.querySelector('#row-0 b')?.offsetWidth ?? 99") > 40
        wider = "(e) => e.scrollWidth - e.clientWidth"
        assert page.eval_on_selector("#detail", wider) <= 0, benchmark
    chips = page.eval_on_selector_all(
        "body > header .run", "(all) => all.map((e) => getComputedStyle(e, '::before').background)"
    )
    assert len(set(chips)) == 12
    for tab in ("#tab-samples", "#tab-table", "#tab-figures"):
        page.click(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert (
        page.query_selector_all("body script:not([type])")[1:] == []
        and page.query_selector_all("body img[src=x]") == []
    )
