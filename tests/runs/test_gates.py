"""`napo-bench gate`: fails on a proven regression, never on noise, and never passes what it cannot judge."""

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from synthetic_runs import invoke, make_run

from napo_bench.benchmarks.object_halbench import METRICS
from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.benchmarks.scoring import measure
from napo_bench.core.paths import results_dir
from napo_bench.runs.gates import check_gates, load_gates
from napo_bench.runs.provenance import DataUsed, Provenance
from napo_bench.runs.result import RunResult

REPOSITORY = Path(__file__).resolve().parents[2]


def chair_run(hallucinated, a_picture=1) -> RunResult:
    """A run whose answers hallucinate where `hallucinated` says so, with three mentions each.

    Args:
        hallucinated: Whether each answer hallucinates.
        a_picture: Number of answers about one picture.
    """
    samples = []
    for index, wrong in enumerate(hallucinated):
        counts = {
            "answers": 1,
            "words": 10,
            "answers_with_objects": 1,
            "answers_with_hallucination": int(wrong),
            "mentions": 3,
            "hallucinated": int(wrong),
            "recalled": 2,
            "image_objects": 4,
        }
        picture = {} if a_picture == 1 else {"image": f"{index // a_picture}.jpg"}
        samples.append({"sample_id": str(index), "unit": "response", **picture, "counts": counts})
    metrics = measure(samples, METRICS)
    provenance = Provenance(data=DataUsed(sha256={"object_halbench/synonyms_refine.txt": "a" * 64}))
    return RunResult({"object_halbench": BenchmarkResult(metrics, samples=samples)}, provenance)


def outcomes(n, rate, seed=0):
    return np.random.default_rng(seed).random(n) < rate


@pytest.fixture
def gates_file(tmp_path):
    def write(text):
        path = tmp_path / "gates.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def verdict(gates_file):
    """The verdict and its reason on chair_s, `max_regression` as given."""

    def find(candidate, baseline, allowed=8, top="", a_picture=1):
        gates = load_gates(gates_file(f"{top}\n[object_halbench.chair_s]\nmax_regression = {allowed}"))
        report = check_gates(chair_run(candidate, a_picture), chair_run(baseline, a_picture), gates)
        return report.checks[0].verdict, report.checks[0].reason, report.exit_code

    return find


# Verdicts


def test_the_same_answers_pass(verdict):
    answers = outcomes(300, 0.3)
    assert verdict(answers, answers)[::2] == ("passed", 0)


def test_a_large_regression_fails(verdict):
    assert verdict(outcomes(300, 0.6, 1), outcomes(300, 0.3))[::2] == ("regressed", 1)


def test_an_improvement_passes(verdict):
    assert verdict(outcomes(300, 0.1, 1), outcomes(300, 0.4))[::2] == ("passed", 0)


def test_worse_by_less_than_allowed_passes(verdict):
    baseline = outcomes(1000, 0.3)
    candidate = baseline.copy()
    candidate[np.flatnonzero(~baseline)[:30]] = True
    assert verdict(candidate, baseline)[::2] == ("passed", 0)


def test_worse_by_about_as_much_as_allowed_is_inconclusive(verdict):
    baseline = outcomes(300, 0.3)
    candidate = baseline.copy()
    candidate[np.flatnonzero(~baseline)[:24]] = True
    kind, reason, code = verdict(candidate, baseline)
    assert (kind, code) == ("inconclusive", 2)
    assert "n too small" in reason


@pytest.mark.parametrize("n", [1, 2, 10, 35])
def test_few_samples_never_pass_however_well_they_agree(verdict, n):
    """Without a single change, 36 samples are needed to exclude 8 points: (1 - 0.08)^36 < 5%."""
    answers = outcomes(n, 0.3)
    kind, reason, _ = verdict(answers, answers)
    assert kind == "inconclusive"
    assert f"{n} samples, 36 needed" in reason


def test_enough_samples_pass_when_they_agree(verdict):
    answers = outcomes(36, 0.3)
    assert verdict(answers, answers)[0] == "passed"


def test_twenty_samples_fail_when_all_are_worse_and_fewer_say_nothing(verdict):
    assert verdict([True] * 20, [False] * 20)[0] == "regressed"
    assert verdict([True] * 19, [False] * 19)[0] == "inconclusive"


def test_many_answers_about_few_pictures_say_nothing(verdict):
    kind, reason, _ = verdict([True] * 190, [False] * 190, a_picture=10)
    assert kind == "inconclusive" and "190 samples about 19 pictures" in reason
    kind, reason, _ = verdict([False] * 350, [False] * 350, a_picture=10)
    assert kind == "inconclusive" and "350 samples about 35 pictures, 36 needed" in reason
    assert verdict([False] * 360, [False] * 360, a_picture=10)[0] == "passed"
    assert verdict([True] * 200, [False] * 200, a_picture=10)[0] == "regressed"


@pytest.mark.parametrize(("setting", "code"), [("error", 2), ("fail", 1), ("pass", 0)])
def test_what_inconclusive_does_is_a_setting(verdict, setting, code):
    assert verdict([True], [True], top=f'inconclusive = "{setting}"')[2] == code


def test_higher_confidence_turns_a_failure_into_inconclusive(verdict):
    baseline = outcomes(150, 0.3)
    candidate = baseline.copy()
    candidate[np.flatnonzero(~baseline)[:24]] = True  # worse by 16 points, standard error 3
    assert verdict(candidate, baseline, top="confidence = 0.9")[0] == "regressed"
    assert verdict(candidate, baseline, top="confidence = 0.9999")[0] == "inconclusive"


def test_noise_does_not_fail_and_loss_at_the_limit_fails_as_rarely_as_promised(gates_file):
    gates = load_gates(gates_file("[object_halbench.chair_s]\nmax_regression = 8"))
    failures = {0.0: 0, 0.08: 0}
    for loss in failures:
        for seed in range(60):
            rng = np.random.default_rng([seed, round(100 * loss)])
            baseline, redrawn = rng.random(300) < 0.3, rng.random(300)
            candidate = np.where(rng.random(300) < 0.4, redrawn < 0.3 + loss / 0.4, baseline)
            failures[loss] += check_gates(chair_run(candidate), chair_run(baseline), gates).exit_code == 1
    assert failures[0.0] == 0
    assert failures[0.08] <= 8  # 5% of 60 is 3; more than 8 has a chance below 1%


def test_a_higher_is_better_metric_regresses_downwards(gates_file):
    sizes = {"vlind": 300}
    gates = load_gates(gates_file("[vlind.lp_accuracy]\nmax_regression = 10"))
    good, bad = make_run(0.8, 1, sizes=sizes), make_run(0.4, 2, sizes=sizes)
    assert check_gates(bad, good, gates).checks[0].verdict == "regressed"
    assert check_gates(good, bad, gates).checks[0].verdict == "passed"


@pytest.mark.parametrize(
    ("limit", "verdict", "code"),
    [
        ("floor = 40", "regressed", 1),
        ("floor = 20", "passed", 0),
        ("ceiling = 20", "regressed", 1),
        ("ceiling = 40", "passed", 0),
    ],
)
def test_floor_and_ceiling_are_about_the_value_itself(gates_file, limit, verdict, code):
    answers = [True] * 30 + [False] * 70
    report = check_gates(
        chair_run(answers), chair_run(answers), load_gates(gates_file(f"[object_halbench.chair_s]\n{limit}"))
    )
    assert (report.checks[0].verdict, report.exit_code) == (verdict, code)


def test_a_floor_met_over_a_part_of_the_benchmark_is_inconclusive(gates_file):
    run = chair_run([True] * 30 + [False] * 70)
    part = RunResult(
        {"object_halbench": dataclasses.replace(run.benchmarks["object_halbench"], complete=False)}, run.provenance
    )
    report = check_gates(part, run, load_gates(gates_file("[object_halbench.chair_s]\nceiling = 90")))
    assert (report.checks[0].verdict, report.exit_code) == ("inconclusive", 2)


def test_samples_in_one_run_only_are_noted(gates_file):
    gates = load_gates(gates_file("[object_halbench.chair_s]\nmax_regression = 8"))
    report = check_gates(chair_run(outcomes(200, 0.3)), chair_run(outcomes(300, 0.3)), gates)
    assert report.checks[0].n == 200
    assert report.notes == ["object_halbench: 200 samples are in both runs, 100 in one only"]


# The default gates


def test_default_gates_are_on_chair_cb_and_lp():
    keys = {gate.metric.key for gate in load_gates(results_dir() / "gates.toml").gates}
    assert {"vlind.cb", "vlind.lp", "object_halbench.chair_s", "object_halbench.chair_i", "amber.chair"} == keys


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A good run, the same run again, and a run of a worse checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    sizes = {"vlind": 300, "object_halbench": 300, "amber": 300}
    for name, skill, seed in (("good", 0.75, 1), ("again", 0.75, 1), ("worse", 0.35, 2)):
        make_run(skill, seed, sizes=sizes).save(folder / name / "run.json")
    return folder


def test_swapping_in_a_worse_checkpoint_fails_the_build(saved, monkeypatch, capsys):
    code, printed, _ = invoke(["gate", saved / "worse", "--baseline", saved / "good"], monkeypatch, capsys)
    assert code == 1
    assert "Regressed" in printed and "vlind.lp" in printed


def test_the_same_checkpoint_passes(saved, monkeypatch, capsys):
    code, printed, _ = invoke(
        ["gate", saved / "again" / "run.json", "--baseline", saved / "good" / "run.json"], monkeypatch, capsys
    )
    assert (code, "Passed: 5 checks." in printed) == (0, True)


def test_the_title_and_the_remarks_of_both_runs_are_in_every_report(saved, tmp_path, monkeypatch, capsys):
    for name, skill in (("good", 0.4), ("worse", 0.4)):
        run = RunResult.load(saved / name)
        run.benchmarks["vlind"].notes = [f"{skill} of the answers are <empty>\x00", "96 judge replies, 1 prompt tokens"]
        run.save(tmp_path / name / "run.json")
    summary, junit, document = (tmp_path / name for name in ("summary.md", "gate.xml", "gate.json"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    command = ["gate", tmp_path / "worse", "--baseline", tmp_path / "good", "--junit", junit, "--json", document]
    _, printed, _ = invoke(command, monkeypatch, capsys)
    title, remark = "worse against good", "vlind, baseline and candidate: 0.4 of the answers are "
    assert title in printed and f"note {remark}<empty>" in printed
    assert f"gate, {title}:" in summary.read_text() and f"- {remark}&lt;empty&gt;" in summary.read_text()
    suite = ElementTree.fromstring(junit.read_text())
    assert suite.get("name") == f"napo-bench gate, {title}"
    assert remark in suite.findtext("system-out")
    assert any(remark in note for note in json.loads(document.read_text())["notes"])


def test_reports_for_ci_agree_with_the_console(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("before\n")
    json_out, junit = tmp_path / "gate.json", tmp_path / "gate.xml"
    invoke(
        ["gate", saved / "worse", "--baseline", saved / "good", "--json", json_out, "--junit", junit],
        monkeypatch,
        capsys,
    )
    written = json.loads(json_out.read_text())
    verdicts = {check["metric"]: check["verdict"] for check in written["checks"]}
    assert written["exit_code"] == 1 and verdicts["vlind.lp"] == "regressed"
    suite = ElementTree.parse(junit).getroot()
    failed = {
        f"{case.get('classname')}.{case.get('name').split()[0]}" for case in suite if case.find("failure") is not None
    }
    assert failed == {metric for metric, kind in verdicts.items() if kind == "regressed"}
    assert suite.get("tests") == "5" and suite.get("failures") == str(len(failed))
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("before\n### napo-bench gate, worse against good: Regressed") and summary.count(
        "❌"
    ) == len(failed)


# Bad input: named, exit code 2, never a pass


def no_metric(run):
    del run.benchmarks["vlind"].metrics["lp"]


def other_benchmark(run):
    run.benchmarks = {"mmhal": run.benchmarks["amber"]}


def other_data(run):
    run.provenance.data.sha256["vlind/data.json"] = "0" * 64


def other_settings(run):
    run.benchmarks["amber"].settings["text_pipeline"] = {"name": "closed_vocabulary"}


def edited_value(run):
    run.benchmarks["vlind"].metrics["cb"] = MetricValue(99.0, (98.0, 100.0), 300)


def other_samples(run):
    for sample in run.benchmarks["vlind"].samples:
        sample["sample_id"] = "x" + sample["sample_id"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (no_metric, "vlind.lp"),
        (other_benchmark, "vlind"),
        (other_data, "vlind/data.json"),
        (other_settings, "text_pipeline"),
        (edited_value, "vlind.cb"),
        (other_samples, "share no sample"),
    ],
)
@pytest.mark.parametrize("which", ["candidate", "baseline"])
def test_runs_that_cannot_be_judged_are_named(saved, tmp_path, monkeypatch, capsys, change, named, which):
    run = RunResult.load(saved / "good")
    change(run)
    run.save(tmp_path / "changed.json")
    paths = [tmp_path / "changed.json", saved / "good"]
    candidate, baseline = paths if which == "candidate" else reversed(paths)
    code, printed, err = invoke(["gate", candidate, "--baseline", baseline], monkeypatch, capsys)
    assert code == 2
    assert named in err and "Passed" not in printed


def test_another_schema_version_is_named(saved, tmp_path, monkeypatch, capsys):
    document = json.loads((saved / "good" / "run.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps({**document, "schema_version": 0}))
    code, _, err = invoke(["gate", tmp_path / "old.json", "--baseline", saved / "good"], monkeypatch, capsys)
    assert code == 2 and "schema_version is 0" in err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "holds no gate"),
        ("confidence = 0.95\n", "holds no gate"),
        ("[vlind.lpp]\nmax_regression = 3", "vlind.lp"),
        ("[vlindd.lp]\nmax_regression = 3", "vlindd"),
        ("[vlind.lp]\nmax_regresion = 3", "max_regresion"),
        ("[vlind.lp]\n", "no limit"),
        ("[vlind.lp]\nmax_regression = 'three'", "max_regression"),
        ("[vlind.lp]\nmax_regression = -3", "max_regression"),
        ("[vlind.lp]\nmax_regression = 3\nbetter = 'lower'", "better"),
        ("[object_halbench.mean_words]\nmax_regression = 3", "better"),
        ("confidence = 95\n[vlind.lp]\nmax_regression = 3", "confidence"),
        ("inconclusive = 'maybe'\n[vlind.lp]\nmax_regression = 3", "inconclusive"),
        ("vlind.lp = ", "not valid TOML"),
    ],
)
def test_a_gates_file_that_is_wrong_is_named(saved, gates_file, monkeypatch, capsys, text, named):
    code, printed, err = invoke(
        ["gate", saved / "good", "--baseline", saved / "good", "--gates", gates_file(text)], monkeypatch, capsys
    )
    assert code == 2
    assert named in err and "gates.toml" in err and "Passed" not in printed


@pytest.mark.parametrize("missing", ["candidate", "baseline", "gates"])
def test_a_missing_file_is_named(saved, tmp_path, monkeypatch, capsys, missing):
    paths = {"candidate": saved / "good", "baseline": saved / "good", "gates": results_dir() / "gates.toml"}
    paths[missing] = tmp_path / "nowhere.json"
    code, _, err = invoke(
        ["gate", paths["candidate"], "--baseline", paths["baseline"], "--gates", paths["gates"]], monkeypatch, capsys
    )
    assert code == 2 and "nowhere.json" in err


# The GitHub Action


@pytest.fixture
def action():
    return yaml.safe_load((REPOSITORY / "action.yml").read_text())


def test_the_gate_needs_only_what_the_action_installs(saved, action):
    install = next(step["run"] for step in action["runs"]["steps"] if "pip" in step.get("run", ""))
    installed = set(re.search(r"constraints.txt\" ((?:\w+ ?)+)$", install, re.M)[1].split())
    program = (
        "import importlib.metadata, json, sys\n"
        "from napo_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "names = importlib.metadata.packages_distributions()\n"
        "print('\\n', json.dumps(sorted({d for m in list(sys.modules) for d in names.get(m.split('.')[0], [])})))\n"
    )
    command = [sys.executable, "-c", program, "gate", str(saved / "good"), "--baseline", str(saved / "good")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = set(json.loads(done.stdout.splitlines()[-1])) - {"napo-bench", "setuptools", "pip", "coverage"}
    allowed, queue = set(), sorted(installed)
    while queue:
        name = queue.pop()
        if name not in allowed:
            allowed.add(name)
            queue += [
                re.split(r"[^\w.-]", need)[0] for need in importlib.metadata.requires(name) or [] if "extra" not in need
            ]
    canonical = {re.sub(r"[-_.]+", "-", name).lower() for name in allowed}
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in used} <= canonical


@pytest.mark.parametrize(
    ("candidate", "gates", "code"), [("again", "", 0), ("worse", "", 1), ("worse", "missing.toml", 2)]
)
def test_the_actions_step_gates_a_run(saved, tmp_path, action, candidate, gates, code):
    """The step's own script, with the installed command where the action puts it."""
    command = shutil.which("napo-bench") or str(Path(sys.executable).parent / "napo-bench")
    (tmp_path / "napo-bench" / "bin").mkdir(parents=True)
    (tmp_path / "napo-bench" / "bin" / "napo-bench").symlink_to(command)
    step = action["runs"]["steps"][-1]
    given = {name: str(entry.get("default", "")) for name, entry in action["inputs"].items()}
    given |= {"run": str(saved / candidate), "baseline": str(saved / "good"), "gates": gates}
    environment = {name: given[re.search(r"inputs\.(\w+)", value)[1]] for name, value in step["env"].items()}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=os.environ | environment | {"RUNNER_TEMP": str(tmp_path)}
    )
    assert done.returncode == code
    assert (tmp_path / "gate.xml").is_file() == (tmp_path / "gate.json").is_file() == (code != 2)
