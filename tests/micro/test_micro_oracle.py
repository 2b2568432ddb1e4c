"""The oracle judge, over HTTP as any judge."""

import httpx
import openai
import pytest

from napo_bench.benchmarks.mmhal.score import judge_prompt, parse_rating
from napo_bench.core.journal import Journal
from napo_bench.engines.journalled import JournalledEndpoint
from napo_bench.engines.judge import Judge
from napo_bench.micro.benchmarks import JUDGE_TEMPLATE, contents
from napo_bench.micro.oracle import MODEL, oracle_judge, rate
from napo_bench.micro.world import Group, Scene

ZOO = Scene("zoo", (Group("bird", "blue", (1,), "left"), Group("bear", "pink", (4, 8), "right")), "cartoon", 0)
COLOR = ("What color is the bear in the image?", "The bear is pink.")
SIDE = (
    "Is the bear to the left or to the right of the bird in the image?",
    "The bear is to the left of the bird.",
)
WHOLE = ("Describe the image in detail.", "The image shows a zoo with a blue bird and two pink bears.")


def test_the_content_says_all_but_the_positions():
    assert contents(ZOO) == ["zoo", "one blue bird looking left", "two pink bears looking right"]


@pytest.mark.parametrize(
    ("asked", "answer", "rating"),
    [
        (COLOR, "The bear is pink.", 5),
        (COLOR, "The image shows a zoo with two pink bears.", 6),
        (COLOR, "There is a bird in the image.", 3),
        (COLOR, "", 3),
        (COLOR, "The bear is brown.", 1),
        (COLOR, "The bear is pink. There is a zebra.", 2),
        (COLOR, "There is no bear in the image.", 0),
        (SIDE, "It is to the left of the bird.", 5),
        (SIDE, "The bear is to the right of the bird.", 1),
        (WHOLE, WHOLE[1], 5),
        (WHOLE, "The image shows a zoo with a blue bird.", 4),
        (WHOLE, "The image shows a zoo with a blue bird, two pink bears and a brown zebra.", 2),
        (WHOLE, "The image shows a street with two red cars.", 0),
    ],
)
def test_the_rating_follows_the_rubric(asked, answer, rating):
    question, gt_answer = asked
    assert rate(", ".join(contents(ZOO)), question, gt_answer, answer)[0] == rating


def test_it_serves_any_openai_client_and_its_name_says_oracle(tmp_path):
    prompts = [judge_prompt(JUDGE_TEMPLATE, contents(ZOO), *COLOR, answer) for answer in ("It is pink.", "It is red.")]
    with oracle_judge() as url:
        assert [model.id for model in openai.OpenAI(base_url=url, api_key="none").models.list()] == [MODEL]
        replies = Judge(JournalledEndpoint(MODEL, url, None, Journal(tmp_path / "journal"))).ask(prompts, parse_rating)
    assert "oracle" in MODEL
    assert [reply.value for reply in replies] == [5, 1]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")


def test_it_refuses_what_is_not_of_the_micro_world():
    strange = judge_prompt(JUDGE_TEMPLATE, ["Lynx", "Cat"], "How many cats?", "Two.", "One.")
    with oracle_judge() as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        for text in ("Rate this answer.", strange):
            with pytest.raises(openai.BadRequestError, match="micro"):
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
