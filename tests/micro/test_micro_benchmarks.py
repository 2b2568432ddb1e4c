"""The micro world's benchmarks: read by the readers of the real ones, scored by their scorers."""

import json
import random
import shutil
from collections import Counter

import pytest
from PIL import Image

from napo_bench.benchmarks import all_tasks
from napo_bench.benchmarks.amber.official import GENERATIVE, load_data
from napo_bench.benchmarks.vlind.official import load_instances
from napo_bench.core.journal import Journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge
from napo_bench.micro import benchmarks as micro
from napo_bench.micro import data as data_dir
from napo_bench.micro.language import answers, imagined, understand
from napo_bench.micro.oracle import MODEL, oracle_judge
from napo_bench.runs import score as scoring


def units_of(task, data):
    benchmark, _ = all_tasks()[task]
    return benchmark.open(data / benchmark.name).units(task)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("micro")
    data_dir.write_data(folder)
    return folder


@pytest.fixture
def score(data, tmp_path):
    def scored(benchmark, units, answer):
        rows = [question.response_row(answer(question)) for unit in units for question in unit]
        with oracle_judge() as url:
            judge = Judge(JournalledEndpoint(MODEL, url, None, Journal(tmp_path / "judge.sqlite")))
            options = scoring.ScoreOptions(pipeline="closed_vocabulary", judges=(judge,))
            result = scoring.score(benchmark, rows, data, options)
        assert result.complete, result.notes
        return {name: metric.value for name, metric in result.metrics.items()}, result

    return scored


def prior(question):
    asked = understand(question.prompt)
    if asked.basis == "context":
        return "True" if asked.stated == asked.typical else "False"
    return answers(asked, imagined(asked))[0]


def knower(scenes):
    return lambda question: answers(understand(question.prompt), scenes[str(question.response_row("")[key(question)])])[
        0
    ]


def key(question):
    return next(name for name in ("id", "image_id") if name in question.response_row(""))


# --- VLind-Bench


def vlind_truth(question):
    return "True" if question.response_row("")["statement"] == 1 else "False"


def test_vlind_has_three_concepts_and_good_pictures_in_three_styles(data):
    instances = load_instances(data / "vlind")
    assert len(instances) >= 300
    assert Counter(instance.concept for instance in instances) == {"color": 112, "companion": 112, "habitat": 84}
    assert {instance.good_images for instance in instances} == {("0", "4", "8", "9")}
    assert {int(image) // 4 for instance in instances for image in instance.good_images} == {0, 1, 2}
    pictures = [p.path for instance in instances for p in (instance.factual, *instance.counterfactual.values())]
    assert len(set(pictures)) == len(instances) * 5
    assert all(path.is_file() for path in pictures)


def test_vlind_pictures_show_what_their_instance_says(data):
    """Drawn again from the words of the instance, the best picture is the same but for the file's compression."""
    for instance in random.Random(0).sample(load_instances(data / "vlind"), 5):
        asked = understand(vlind_prompt(instance))
        rng = random.Random(f"vlind/0/{instance.concept}/{asked.thing}/{asked.stated}")
        scene = micro.counterfactual_scene(rng, instance.concept, asked.thing, asked.stated, "photorealistic")
        assert answers(asked, scene) == ("True",)
        with Image.open(instance.counterfactual["0"].path) as picture:
            shown = picture.convert("L").resize((16, 16))
        drawn = micro.draw(scene).convert("L").resize((16, 16))
        assert max(abs(a - b) for a, b in zip(shown.get_flattened_data(), drawn.get_flattened_data(), strict=True)) <= 3


def vlind_prompt(instance):
    from napo_bench.benchmarks.vlind.prompts import image_prompt

    return image_prompt(instance.true_statement, forget=True)


def test_vlind_rewards_looking_and_punishes_the_prior(data, score):
    units = units_of("vlind", data)
    perfect, result = score("vlind", units, vlind_truth)
    assert [perfect[name] for name in ("ck", "vp", "cb", "lp")] == [100, 100, 100, 100]
    assert {group for group in result.breakdown if group.startswith("style/")}
    guessed, _ = score("vlind", units, prior)
    assert guessed["ck"] == 100
    assert guessed["vp"] == guessed["cb"] == guessed["lp_accuracy"] == guessed["cb_accuracy"] == 0


# --- Object HalBench


def described(benchmark):
    scenes = micro.described_scenes(benchmark, micro.DESCRIPTIONS)
    return {str(number): scene for number, scene in enumerate(scenes, start=1)}


def test_object_halbench_rewards_the_truth_and_punishes_the_prior(data, score):
    units = units_of("object_halbench", data)
    assert len(units) == 300
    assert len({unit[0].prompt for unit in units}) == 8
    assert units[0][0].open_picture().size == (256, 256)
    perfect, _ = score("object_halbench", units, knower(described("object_halbench")))
    assert (perfect["chair_s"], perfect["chair_i"], perfect["recall"]) == (0, 0, 100)
    guessed, _ = score("object_halbench", units, prior)
    assert guessed["chair_s"] > 80
    assert guessed["recall"] < 20


def test_one_invented_companion_is_one_hallucination(data, score):
    units = units_of("object_halbench", data)
    scenes = described("object_halbench")
    expected = sum(bool(micro.tempting(scene)) for scene in scenes.values()) / 3
    tempted, _ = score(
        "object_halbench",
        units,
        lambda q: "There is " + " and ".join(micro.tempting(scenes[str(q.response_row("")["image_id"])])),
    )
    assert tempted["chair_s"] == pytest.approx(expected)
    assert 30 <= expected <= 80


# --- AMBER


def test_amber_has_both_halves_and_all_types(data):
    annotations = load_data(data / "amber").annotations
    assert Counter(a.type for a in annotations) == {GENERATIVE: 300, **micro.AMBER_QUESTIONS}
    assert sum(micro.AMBER_QUESTIONS.values()) == 1000
    for kind in micro.AMBER_QUESTIONS:
        truths = Counter(a.truth[0] for a in annotations if a.type == kind)
        if kind == "relation":
            assert set(truths) == {"no"}
        elif kind == "discriminative-relation":
            assert set(truths) == {"yes"}
        else:
            assert min(truths["yes"], truths["no"]) > 0.25 * truths.total(), (kind, truths)


def test_amber_rewards_the_truth_and_punishes_the_prior(data, score):
    units = units_of("amber", data) + units_of("amber_discriminative", data)
    scenes = described("amber")
    by_image = {f"AMBER_{number}.png": scene for number, scene in scenes.items()}

    def truth(question):
        return answers(understand(question.prompt), by_image[question.file.name])[0]

    perfect, _ = score("amber", units, truth)
    assert (perfect["chair"], perfect["cover"], perfect["hal"], perfect["cog"]) == (0, 100, 0, 0)
    assert perfect["accuracy"] == 100
    assert perfect["existence_f1"] > 99
    guessed, _ = score("amber", units, prior)
    assert guessed["hal"] > 80
    assert guessed["cover"] < 30
    assert guessed["accuracy"] < 65


# --- MMHal-Bench


def test_mmhal_rewards_the_truth_and_punishes_the_prior(data, score):
    units = units_of("mmhal", data)
    truths = {row["image_id"]: row["gt_answer"] for row in json.loads((data / "mmhal/template.json").read_text())}
    perfect, result = score("mmhal", units, lambda question: truths[question.response_row("")["image_id"]])
    assert len(units) == 96
    assert perfect["score"] >= 5
    assert perfect["hal_rate"] == 0
    assert result.settings["judge"]["model"] == MODEL
    assert len(result.breakdown) == 8
    guessed, result = score("mmhal", units, prior)
    assert guessed["hal_rate"] > 0.5
    assert result.breakdown["question_type/adversarial"]["score"].value < 1


# --- the data folder


def test_the_same_seed_writes_the_same_bytes(data, tmp_path):
    micro.write_mmhal(tmp_path / "again", micro.SEED)
    micro.write_mmhal(tmp_path / "other", micro.SEED + 1)
    written = {path.relative_to(data / "mmhal"): path.read_bytes() for path in (data / "mmhal").rglob("*.*")}
    assert len(written) == 98
    for name, content in written.items():
        assert (tmp_path / "again" / name).read_bytes() == content
    assert (tmp_path / "other" / "template.json").read_bytes() != (data / "mmhal" / "template.json").read_bytes()


def test_data_are_written_once_into_the_cache(data, own_cache, monkeypatch):
    written = []
    monkeypatch.setattr(data_dir, "write_data", lambda folder: written.append(shutil.copytree(data, folder)))
    folder = data_dir.ensure_data()
    assert own_cache in folder.parents
    assert data_dir.ensure_data() == folder
    assert len(written) == 1
    assert data_dir.world_version() in folder.name


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda text: "# a remark\n" + text, False),
        (lambda text: text.replace("import random", "import random\nfrom os import path"), False),
        (lambda text: text.replace('"""A die."""', '"""A fair die,\n\n    with six sides."""'), False),
        (lambda text: text.replace("1, 6", "1, 8"), True),
        (lambda text: text.replace("six", "eight"), True),
    ],
)
def test_a_version_follows_what_code_does_not_how_it_is_described(change, counts, tmp_path):
    text = 'import random\n\n\ndef roll():\n    """A die."""\n    return random.randint(1, 6), """six"""\n'
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(text)
    after.write_text(change(text))
    assert (data_dir.code_digest(before) != data_dir.code_digest(after)) is counts
