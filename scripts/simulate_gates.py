"""False-alarm rate and power of the default gates, by simulation.

    python scripts/simulate_gates.py --trials 300

Two checkpoints answer the same samples. Both have the same difficulty of a sample, and each has its own noise, so a
third of the outcomes differ between two equally good checkpoints (a quarter on AMBER). A shift of the log-odds then
makes the candidate worse by a known number of points.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.core.paths import results_dir
from napo_bench.runs.gates import Gate, Gates, check_gates, load_gates
from napo_bench.runs.result import RunResult

Floats = NDArray[np.float64]

DIFFICULTY = 1.5
OWN_NOISE = 1.0
SAMPLES = {"vlind": 300, "object_halbench": 300, "amber": 1004}
LOG_ODDS = {"ck": 3.0, "vp": 1.2, "cb": 0.0, "lp": -0.5, "object_halbench": -2.2, "amber": -3.8}
WORSE = (0.0, 1.0, 2.0, 3.0)


def probability(log_odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-log_odds))


def vlind(difficulty: Floats, shift: dict[str, float], rng: np.random.Generator) -> list[dict[str, float]]:
    n = len(difficulty)
    passes = {
        test: rng.random(n) < probability(LOG_ODDS[test] - difficulty * (test == "cb") - shift.get(test, 0))
        for test in ("ck", "vp", "cb")
    }
    images = rng.integers(1, 13, n)
    share = rng.binomial(images, probability(LOG_ODDS["lp"] - difficulty - shift.get("lp", 0))) / images
    eligible = passes["ck"] & passes["vp"] & passes["cb"]
    return [
        {
            "instances": 1.0,
            "ck": float(passes["ck"][i]),
            "vp": float(passes["vp"][i]),
            "cb": float(passes["cb"][i]),
            "ck_and_cb": float(passes["ck"][i] and passes["cb"][i]),
            "lp": float(share[i]),
            "lp_eligible": float(eligible[i]),
            "lp_share": float(share[i] * eligible[i]),
        }
        for i in range(n)
    ]


def object_halbench(difficulty: Floats, shift: dict[str, float], rng: np.random.Generator) -> list[dict[str, float]]:
    mentions = rng.poisson(4, len(difficulty))
    hallucinated = rng.binomial(
        mentions, probability(LOG_ODDS["object_halbench"] + difficulty + shift.get("mentions", 0))
    )
    return [
        {
            "answers": 1.0,
            "answers_with_objects": float(m > 0),
            "answers_with_hallucination": float(h > 0),
            "mentions": float(m),
            "hallucinated": float(h),
        }
        for m, h in zip(mentions, hallucinated, strict=True)
    ]


def amber(difficulty: Floats, shift: dict[str, float], rng: np.random.Generator) -> list[dict[str, float]]:
    mentions = rng.poisson(5, len(difficulty))
    hallucinated = rng.binomial(mentions, probability(LOG_ODDS["amber"] + difficulty + shift.get("mentions", 0)))
    return [
        {"responses": 1.0, "mentions": float(m), "hallucinated": float(h)}
        for m, h in zip(mentions, hallucinated, strict=True)
    ]


MODELS = {"vlind": vlind, "object_halbench": object_halbench, "amber": amber}


def checkpoint(shared: dict[str, Floats], shift: dict[str, float], gates: Gates, rng: np.random.Generator) -> RunResult:
    benchmarks = {}
    for name, difficulty in shared.items():
        own = difficulty + rng.normal(0, OWN_NOISE, len(difficulty))
        rows = MODELS[name](own, shift, rng)
        sums = {count: sum(row[count] for row in rows) for count in rows[0]}
        metrics = {
            gate.metric.name: MetricValue(float(gate.metric.function(sums)), (0.0, 0.0), len(rows))
            for gate in gates.gates
            if gate.metric.benchmark == name
        }
        samples = [{"sample_id": str(i), "unit": "sample", "counts": row} for i, row in enumerate(rows)]
        benchmarks[name] = BenchmarkResult(metrics, samples=samples)
    return RunResult(benchmarks)


def draw_shared(n: dict[str, int], rng: np.random.Generator) -> dict[str, Floats]:
    return {name: rng.normal(0, DIFFICULTY, size) for name, size in n.items()}


def worsening(gate: Gate, gates: Gates, times: float) -> dict[str, float]:
    """The shift that makes a gate's metric worse by `times` its allowed regression."""
    name = gate.metric.benchmark
    shifted = gate.metric.name if name == "vlind" else "mentions"
    shared = draw_shared({name: 40_000}, np.random.default_rng(1))
    only = Gates([gate], gates.confidence, gates.inconclusive)

    def value(shift: float) -> float:
        run = checkpoint(shared, {shifted: shift}, only, np.random.default_rng(2))
        return run.benchmarks[name].metrics[gate.metric.name].value

    shifts = np.linspace(0, 6, 13)
    loss = [abs(value(float(shift)) - value(0.0)) for shift in shifts]
    return {shifted: float(np.interp(times * (gate.limits.max_regression or 0.0), loss, shifts))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    trials = parser.parse_args().trials
    gates = load_gates(results_dir() / "gates.toml")
    print(f"{'metric':26s} {'allowed':>7s} {'true loss':>9s} {'passed':>7s} {'regressed':>9s} {'inconclusive':>12s}")
    for times in WORSE:
        for gate in gates.gates:
            shift = worsening(gate, gates, times)
            only = Gates([gate], gates.confidence, gates.inconclusive)
            name = gate.metric.benchmark
            verdicts: Counter[str] = Counter()
            for trial in range(trials):
                rng = np.random.default_rng([trial, round(100 * times)])
                shared = draw_shared({name: SAMPLES[name]}, rng)
                baseline = checkpoint(shared, {}, only, rng)
                candidate = checkpoint(shared, shift, only, rng)
                verdicts[check_gates(candidate, baseline, only).checks[0].verdict] += 1
            allowed = gate.limits.max_regression or 0.0
            passed, regressed, inconclusive = (
                f"{verdicts[kind] / trials:.1%}" for kind in ("passed", "regressed", "inconclusive")
            )
            row = f"{gate.metric.key:26s} {allowed:7.1f} {times * allowed:9.1f}"
            print(f"{row} {passed:>7s} {regressed:>9s} {inconclusive:>12s}", flush=True)


if __name__ == "__main__":
    main()
