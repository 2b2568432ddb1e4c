"""The engine `hf`: batches, beams, pictures that are seen once, and the journal."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_llava import make_checkpoint, picture

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.journal import Journal
from napo_bench.engines.answer import ModelAnswer
from napo_bench.engines.answering import Answering
from napo_bench.engines.decoding.local import LocalModel
from napo_bench.engines.hf import HFEngine
from napo_bench.engines.request import Generation, Picture, Request
from napo_bench.micro.base import base_checkpoint
from napo_bench.models.conversation import Conversation

GREEDY = Generation(max_new_tokens=12)
BEAMS = Generation(max_new_tokens=12, num_beams=3)
SAMPLED = Generation(max_new_tokens=12, num_beams=3, do_sample=True, temperature=2.0)
_DICE = random.Random(7)
PICTURES = [picture(_DICE) for _ in range(6)]


def request(question: str, image: Image.Image | None, generation: Generation) -> Request:
    return Request(question, None if image is None else Picture.of(image), generation)


def asked(number: int, generation: Generation = GREEDY) -> Request:
    """Question `number`: short or long, about one of six pictures or about none."""
    question = "What is in the picture? " * (1 + number % 4) + f"Is the dog {chr(65 + number)}?"
    return request(question, PICTURES[number % 6] if number % 5 else None, generation)


QUESTIONS = [asked(number) for number in range(30)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llava")
    make_checkpoint(folder)
    return folder


class Model(Answering):
    """The answering of an engine with a journal of its own, which counts the batches that are generated."""

    def __init__(self, journal: Path, folder: Path | str, batch_size: int, **options) -> None:
        super().__init__(HFEngine(str(folder), batch_size, device="cpu", **options), Journal(Path(journal)))
        self.batches: list[int] = []
        generate = self.engine.generate

        def counted(prompts):
            self.batches.append(len(prompts))
            return generate(prompts)

        self.engine.generate = counted


@pytest.fixture
def model_of(checkpoint: Path, tmp_path: Path):
    def make(batch_size: int = 4, journal: str = "journal", folder: Path = checkpoint, **options) -> Model:
        return Model(tmp_path / f"{journal}.sqlite", folder, batch_size, **options)

    return make


@pytest.mark.numeric
def test_batches_give_the_answers_of_single_prompts_in_the_order_of_the_questions(model_of) -> None:
    alone = model_of(1, "alone").answer(QUESTIONS, len(QUESTIONS))
    assert len(set(alone)) > 20
    assert model_of(7, "batched").answer(QUESTIONS, len(QUESTIONS)) == alone
    shuffled = random.Random(1).sample(range(30), 30)
    again = model_of(16, "shuffled").answer([QUESTIONS[number] for number in shuffled], 30)
    assert again == [alone[number] for number in shuffled]


@pytest.mark.parametrize("generation", [BEAMS, SAMPLED], ids=["beams", "sampled beams"])
def test_beams_do_not_depend_on_the_batch_either(model_of, generation: Generation) -> None:
    questions = [asked(number, generation) for number in range(12)]
    alone = model_of(1, "alone").answer(questions, 12)
    assert model_of(8, "batched").answer(questions, 12) == alone
    assert alone != model_of(8, "greedy").answer([asked(number) for number in range(12)], 12)


@pytest.mark.numeric
def test_three_beams_are_those_of_the_authors_version(model_of, tmp_path: Path) -> None:
    """The stored answers are those of transformers 4.37.2 to prompts that are passed as embeddings, as in LLaVA."""
    reference = json.loads((Path(__file__).parent / "beams_reference.json").read_text())
    folder = Path(shutil.copytree(base_checkpoint(), tmp_path / "flatter"))
    weights = load_file(folder / "model.safetensors")
    weights["language_model.lm_head.weight"] /= reference["settings"]["flatter"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = model_of(8, folder=folder, dtype="float32")
    generation = Generation(max_new_tokens=reference["settings"]["max_new_tokens"], num_beams=3)
    answers = model.answer([Request(case["question"], None, generation) for case in reference["cases"]], 36)
    decode = model.engine.processor.tokenizer.decode
    assert list(answers) == [decode(case["answer"]).strip() for case in reference["cases"]]
    single = model.answer([Request(case["question"], None, Generation(48)) for case in reference["cases"]], 36)
    assert sum(one != three for one, three in zip(single, answers, strict=True)) > 9


def test_answers_are_those_of_transformers_own_generate(model_of, checkpoint: Path) -> None:
    answers = model_of(8).answer(QUESTIONS[:10], 10)
    processor = transformers.AutoProcessor.from_pretrained(checkpoint, backend="pil")
    model = transformers.LlavaForConditionalGeneration.from_pretrained(checkpoint)
    conversation = model_of(1, "prompts").engine.conversation
    for question, answer in zip(QUESTIONS[:10], answers, strict=True):
        image = None if question.picture is None else conversation.prepare_image(question.picture.open())
        text = conversation.prompt(question.question, has_image=image is not None)
        # The blank gives the text behind the image the "▁" that it has if it is tokenized alone.
        inputs = processor(text=text.replace("<image>", "<image> "), images=image, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        expected = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == expected.strip()


def test_a_cpu_decodes_with_weights_that_are_stored_by_inputs(model_of) -> None:
    model = model_of()
    model.answer(QUESTIONS[:1], 1)
    assert not model.engine.model.lm_head.weight.is_contiguous()


def test_an_answer_says_whether_it_ends_at_the_token_limit(model_of) -> None:
    model = model_of(4, folder=base_checkpoint())

    def ask(most: int, until: tuple[str, ...] = ()) -> ModelAnswer:
        return model.answer([Request("Describe this image.", None, Generation(most, until=until))], 1)[0]

    whole = ask(48)
    tokens = len(model.engine.processor.tokenizer(whole, add_special_tokens=False)["input_ids"])
    assert whole.cut_off is False and whole.beside() == {"cut_off": False}
    assert (ask(tokens + 1).cut_off, ask(tokens).cut_off, ask(3).cut_off) == (False, True, True)
    assert ask(tokens).beside() == {"cut_off": True}  # now from the journal
    assert ask(3, until=(whole.split()[1],)).cut_off is False  # its end is the stop word


def test_a_picture_goes_through_the_vision_tower_once_in_a_window(model_of) -> None:
    model = model_of(4)
    seen = []
    model.engine.model.model.vision_tower.register_forward_hook(
        lambda module, args, output: seen.append(len(output[0]))
    )
    questions = [request(f"Is it {word}?", PICTURES[n % 3], GREEDY) for n, word in enumerate("abcdefghijklmnopqrst")]
    model.answer(questions, len(questions))
    assert sum(seen) == 3


def test_a_picture_is_prepared_once_in_a_window(model_of, monkeypatch) -> None:
    model = model_of(4)
    prepare, prepared = Conversation.prepare_image, []
    monkeypatch.setattr(
        Conversation, "prepare_image", lambda self, image: (prepared.append(image), prepare(self, image))[1]
    )
    questions = [request(f"Is it {word}?", PICTURES[n % 3], GREEDY) for n, word in enumerate("abcdefghijklmnopqrst")]
    model.answer(questions, len(questions))
    assert len(prepared) == 3


def test_equal_questions_are_generated_once(model_of) -> None:
    model = model_of(4)
    answers = model.answer([asked(1), asked(2), asked(1), asked(1)], 4)
    assert model.batches == [2]
    assert answers[0] == answers[2] == answers[3] != answers[1]


def test_a_batch_holds_prompts_of_like_length_the_longest_first(model_of) -> None:
    model = model_of(3)
    lengths = []
    questions = [request("Why? " * count, None, GREEDY) for count in (1, 9, 5, 2, 8, 4)]
    model.answer(questions[:1], 1)  # the first batch is tried in two ways
    model.engine.model.register_forward_pre_hook(
        lambda module, args, inputs: lengths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    model.answer(questions[1:], 5)
    lengths = [length for length in lengths if length > 1]
    assert len(lengths) == 2
    assert lengths[0] > lengths[1]
    assert (
        lengths[1]
        == model.engine.conversation.encode([model.engine.conversation.prompt("Why? " * 4, False)]).input_ids.shape[1]
    )


def test_an_answer_ends_before_until_and_at_max_new_tokens(model_of) -> None:
    model = model_of(1)
    (whole,) = model.answer([asked(1)], 1)
    stop = whole.split()[2]
    (cut,) = model.answer([asked(1, Generation(max_new_tokens=12, until=(stop,)))], 1)
    assert cut == whole.partition(stop)[0].strip()
    (short,) = model.answer([asked(1, Generation(max_new_tokens=2))], 1)
    assert whole.startswith(short)
    assert len(model.engine.processor.tokenizer(short, add_special_tokens=False)["input_ids"]) <= 2


def test_a_sampled_answer_is_the_same_in_every_run(model_of) -> None:
    questions = [asked(number, SAMPLED) for number in range(6)]
    first = model_of(4, "one").answer(questions, 6)
    torch.manual_seed(12345)
    assert model_of(4, "two").answer(questions, 6) == first


def test_what_is_in_the_journal_is_not_generated_again(model_of) -> None:
    first = model_of(4).answer(QUESTIONS, 30)
    again = model_of(8)
    assert again.answer(QUESTIONS, 30) == first
    assert again.batches == []


def test_each_batch_is_on_disk_when_it_ends(model_of, tmp_path: Path) -> None:
    model = model_of(2)
    stored = []
    generate = model.engine.generate

    def look(prompts):
        with Journal(tmp_path / "journal.sqlite") as journal:
            stored.append(len(journal))
        return generate(prompts)

    model.engine.generate = look
    model.answer([request("Why? " * (1 + number), None, GREEDY) for number in range(6)], 6)
    assert stored == [0, 2, 4]


def test_draws_from_the_likeliest_token_alone_are_the_greedy_answers(model_of) -> None:
    drawn = Generation(max_new_tokens=12, do_sample=True, temperature=2.0, top_k=1)
    questions = [asked(number) for number in range(4)]
    of_top_1 = [Request(question.question, question.picture, drawn) for question in questions]
    assert model_of(2).answer(of_top_1, 4) == model_of(2).answer(questions, 4)


@pytest.mark.parametrize(
    "other",
    [
        request("Is the cat red?", PICTURES[0], GREEDY),
        request("Is the dog red?", PICTURES[1], GREEDY),
        request("Is the dog red?", None, GREEDY),
        request("Is the dog red?", PICTURES[0], BEAMS),
        request("Is the dog red?", PICTURES[0], Generation(max_new_tokens=11)),
        request("Is the dog red?", PICTURES[0], Generation(max_new_tokens=12, until=("red",))),
    ],
    ids=["prompt", "picture", "no picture", "beams", "length", "until"],
)
def test_another_question_is_not_answered_from_the_journal(model_of, other: Request) -> None:
    model = model_of(1)
    model.answer([request("Is the dog red?", PICTURES[0], GREEDY)], 1)
    model.answer([other], 1)
    assert model.batches == [1, 1]


def test_one_changed_pixel_is_another_picture(model_of) -> None:
    changed = PICTURES[0].copy()
    red, green, blue = changed.getpixel((3, 3))
    changed.putpixel((3, 3), (red ^ 1, green, blue))
    model = model_of(1)
    model.answer([request("Why?", PICTURES[0], GREEDY), request("Why?", changed, GREEDY)], 2)
    assert model.batches == [1, 1]


def test_other_weights_at_the_same_path_do_not_get_old_answers(model_of, checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "retrained"))
    before = model_of(4, folder=folder).answer(QUESTIONS, 30)
    weights = load_file(folder / "model.safetensors")
    weights = {name: -tensor if "lm_head" in name else tensor for name, tensor in weights.items()}
    times = (folder / "model.safetensors").stat()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    os.utime(folder / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    model = model_of(4, folder=folder)
    assert model.answer(QUESTIONS, 30) != before
    assert sum(model.batches) == 30


def test_a_change_of_precision_does_not_get_old_answers(model_of) -> None:
    model_of(4).answer(QUESTIONS[:4], 4)
    half = model_of(4, dtype="bfloat16")
    half.answer(QUESTIONS[:4], 4)
    assert sum(half.batches) == 4


def test_thoughts_are_kept_in_the_journal_and_are_no_part_of_the_answer(model_of) -> None:
    (whole,) = model_of(4).answer([asked(1)], 1)
    mark = whole.split()[2]
    thoughts, _, rest = whole.rpartition(mark)
    for _ in range(2):
        thinking = model_of(4, thinking_marks=(("never opened", mark),))
        (answer,) = thinking.answer([asked(1)], 1)
        assert (answer, answer.thoughts, answer.unanswered) == (rest.strip(), thoughts + mark, "")
        ids = thinking.engine.processor.tokenizer(thoughts + mark, add_special_tokens=False)["input_ids"]
        assert answer.beside()["thought_tokens"] == len(ids) > 1
        assert not thinking.batches, "the raw text is in the journal"
    (cut,) = model_of(4, thinking_marks=((mark, "never closed"),)).answer([asked(1)], 1)
    assert (cut, cut.thoughts) == ("", whole)
    assert "thoughts" in cut.unanswered


def test_a_thought_that_the_prompt_opens_and_the_model_never_closes_is_no_answer(model_of) -> None:
    (whole,) = model_of(4).answer([asked(1)], 1)
    (cut,) = model_of(4, thinking_marks=(("ASSISTANT:", "never closed"),)).answer([asked(1)], 1)
    assert (cut, cut.thoughts) == ("", f"ASSISTANT:{whole}")
    without = model_of(4).engine.processor.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert cut.thought_tokens == len(without)  # the prompt's own mark is not the model's


def test_marks_that_are_special_tokens_do_not_glue_thoughts_to_the_answer(model_of, monkeypatch) -> None:
    model = model_of(4, thinking_marks=(("<s>", "<unk>"),))
    tokenizer = model.engine.processor.tokenizer
    dog, cat = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("a dog", "a cat"))
    written = [*dog, tokenizer.unk_token_id, *cat, tokenizer.eos_token_id]
    monkeypatch.setattr(LocalModel, "answered", lambda self, prompts, encoded: [list(written) for _ in prompts])
    (answer,) = model.answer([asked(1)], 1)
    assert (answer, answer.thoughts) == ("a cat", "a dog<unk>")
    written[:] = [tokenizer.bos_token_id, *dog, tokenizer.eos_token_id]
    assert model.answer([asked(2)], 1)[0].unanswered
    model = model_of(4, thinking_marks=())
    written[:] = [*dog, *cat]
    assert model.answer([asked(1)], 1) == [tokenizer.decode([*dog, *cat])], "other marks, another text in the journal"


def test_a_stored_value_that_is_no_text_is_answered_anew(model_of, tmp_path: Path) -> None:
    model = model_of(4)
    answers = model.answer(QUESTIONS[:4], 4)
    with Journal(tmp_path / "journal.sqlite") as journal:
        (prompt,) = model._prompts([(QUESTIONS[1], [model._look(QUESTIONS[1].picture)])])
        journal.put({prompt.key: {"text": answers[1]}})
    again = model_of(4)
    assert again.answer(QUESTIONS[:4], 4) == answers
    assert again.batches == [1]


def test_killed_in_the_middle_it_repeats_one_batch_at_most(model_of, checkpoint: Path, tmp_path: Path) -> None:
    undisturbed = model_of(4, "undisturbed")
    expected = undisturbed.answer(QUESTIONS, 30)
    killed = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]!r}
from test_hf import QUESTIONS, Model
model = Model({str(tmp_path / "journal.sqlite")!r}, {str(checkpoint)!r}, 4)
generate, batches = model.engine.generate, []
def die_in_the_fifth(prompts):
    batches.append(generate(prompts))
    if len(batches) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return batches[-1]
model.engine.generate = die_in_the_fifth
model.answer(QUESTIONS, 30)
"""
    ended = subprocess.run([sys.executable, "-c", killed], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    resumed = model_of(4)
    assert resumed.answer(QUESTIONS, 30) == expected
    assert len(resumed.batches) == len(undisturbed.batches) - 4


def test_a_family_that_packs_its_pixels_gets_them_as_they_are(model_of, tmp_path: Path) -> None:
    """Qwen2-VL: patches of all pictures in one row, and grid sizes beside them."""
    make_qwen2_vl(tmp_path / "qwen2-vl")
    questions = [asked(number) for number in range(10)]
    alone = model_of(1, "alone", tmp_path / "qwen2-vl").answer(questions, 10)
    assert model_of(4, "batched", tmp_path / "qwen2-vl").answer(questions, 10) == alone
    assert len(set(alone)) > 5


def make_qwen2_vl(folder: Path) -> None:
    tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyzWIS?.:"]
    tokenizer = transformers.LlamaTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": tokens, "pad_token": "<pad>"})
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{{ '<|vision_start|><|image_pad|><|vision_end|>'"
        " if c['type'] == 'image' else c['text'] }}{% endfor %}{% endfor %}{{ '.' if add_generation_prompt else '' }}"
    )
    pixels = transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)
    video = transformers.Qwen2VLVideoProcessor()
    transformers.Qwen2VLProcessor(pixels, tokenizer, video, chat_template=template).save_pretrained(folder)
    start, end, image, video_id = tokenizer.convert_tokens_to_ids(tokens)
    config = transformers.Qwen2VLConfig(
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        text_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "initializer_range": 0.5,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        },
        image_token_id=image,
        video_token_id=video_id,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    torch.manual_seed(0)
    model = transformers.Qwen2VLForConditionalGeneration(config)
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 1, 2
    model.save_pretrained(folder)


@pytest.mark.parametrize("generation", [GREEDY, BEAMS, SAMPLED], ids=["greedy", "beams", "sampled beams"])
def test_a_model_that_overflows_in_float16_stops_and_names_the_layer(
    model_of, checkpoint, tmp_path, generation
) -> None:
    """Its weights are finite in float16 and its answers are those of float32; only an activation is too large."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "large"))
    weights = load_file(folder / "model.safetensors")
    gate = next(name for name in weights if name.endswith("language_model.model.layers.1.mlp.up_proj.weight"))
    weights[gate] *= 3e4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    questions = [asked(number, generation) for number in range(3)]
    model_of(3, "float32", folder).answer(questions, 3)
    with pytest.raises(NapoBenchError, match="NaN or infinite in float16") as caught:
        model_of(3, "float16", folder, dtype="float16").answer(questions, 3)
    assert "model.language_model.layers.1.mlp." in caught.value.message
    assert "--dtype bfloat16" in caught.value.hint
    with Journal(tmp_path / "float16.sqlite") as journal:
        assert len(journal) == 0


def test_a_vision_tower_that_overflows_is_named(model_of, checkpoint, tmp_path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "large"))
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor * 1e4 if "encoder.layers.0.mlp" in name else tensor for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NapoBenchError, match=r"model\.vision_tower"):
        model_of(3, folder=folder, dtype="float16").answer([asked(1), asked(2), asked(3)], 3)


def test_forbidden_tokens_are_not_mistaken_for_an_overflow(model_of) -> None:
    model = model_of(2)
    model.engine.model.generation_config.suppress_tokens = list(range(300, 400))
    model.engine.model.generation_config.min_new_tokens = 3
    assert all(model.answer([asked(number) for number in range(4)], 4))
    # A penalty that grows beyond float32: the score of the end token is infinite.
    model.engine.model.generation_config.suppress_tokens = None
    model.engine.model.generation_config.exponential_decay_length_penalty = (0, 1e30)
    model.answer([asked(number) for number in range(4, 8)], 4)


@pytest.mark.parametrize("settings", [{"repetition_penalty": -1.0}, {"bad_words_ids": [[-1]]}])
def test_settings_of_a_checkpoint_that_transformers_refuses_are_one_message(model_of, settings) -> None:
    model = model_of(2)
    for field, value in settings.items():
        setattr(model.engine.model.generation_config, field, value)
    with pytest.raises(NapoBenchError, match=r"cannot generate: .*\n0 of 4 .*\nCompare generation_config"):
        model.answer([asked(number) for number in range(4)], 4)


@pytest.mark.parametrize(
    ("options", "said", "advice"),
    [
        ({"dtype": "fp16"}, "dtype is 'fp16'; auto, float32, bfloat16 or float16", "--dtype float16"),
        ({"dtype": "bfloat-16"}, "dtype is 'bfloat-16'", "--dtype bfloat16"),
        ({"dtype": "int8"}, "dtype is 'int8'", "--dtype"),
        ({"device": "gpu"}, "device is 'gpu'; cpu, cuda, mps, xpu", "--device cuda"),
        ({"device": "best"}, "device is 'best'", "--device cpu"),
        ({"device": "cuda:one"}, "device is 'cuda:one'", "--device cuda"),
        ({"device": "cudo"}, "device is 'cudo'", "--device cuda"),
        ({"device": "cuda:99"}, "device is 'cuda:99'; (this machine has|torch finds no)", "--device"),
        ({"device": "cpu:3"}, "device is 'cpu:3'; this machine has cpu", "--device cpu"),
    ],
)
def test_a_device_or_dtype_that_is_not_there_is_refused_first(options, said, advice) -> None:
    with pytest.raises(NapoBenchError, match=said) as caught:
        HFEngine("no/such/checkpoint", **options)
    assert advice in caught.value.hint


def test_a_full_disk_ends_the_run_with_one_message_and_keeps_what_is_done(model_of, checkpoint, tmp_path) -> None:
    limited = f"""
import resource, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]!r}
from test_hf import asked, Model
from napo_bench.core.errors import NapoBenchError
model = Model({str(tmp_path / "journal.sqlite")!r}, {str(checkpoint)!r}, 1)
model.answer([asked(n) for n in range(3)], 3)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    model.answer([asked(n) for n in range(30)], 30)
except NapoBenchError as error:
    print("message:", error.message)
"""
    ended = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert f"message: {tmp_path / 'journal.sqlite'} cannot be written: the " in ended.stdout, ended.stderr
    resumed = model_of(1)
    resumed.answer([asked(number) for number in range(3)], 3)
    assert resumed.batches == []
