"""Conversation: the text, the tokens and the pixels that a checkpoint sees."""

from __future__ import annotations

import string
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer
from transformers import CLIPImageProcessorPil, LlamaTokenizer, LlavaProcessor, PreTrainedTokenizerFast

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.conversation import Conversation

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
VICUNA_SYSTEM = SYSTEM.replace("human", "user")
HUB_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# The same turn, but the template closes its answers: a model with a conversation of its own.
CLOSED_TEMPLATE = HUB_TEMPLATE.replace(
    "{{ content['text'] + ' ' }}",
    "{{ content['text'] + ('</s>' if message['role'] == 'assistant' else ' ') }}",
)
CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{{ '<image>' if content['type'] == 'image' else content['text'] }}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CHARACTERS = ["<unk>", "<s>", "</s>", "▁", *string.ascii_letters, *".,:'?!\n"]
PAD, IMAGE = len(CHARACTERS), len(CHARACTERS) + 1
SIDE, PATCH = 56, 14
IMAGE_TOKENS = (SIDE // PATCH) ** 2
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def processor(template: str | None, add_bos_token: bool = True) -> LlavaProcessor:
    """A LLaVA processor whose tokens are characters, so that anyone can say what the ids must be."""
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[], add_bos_token=add_bos_token)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<pad>"})
    pixels = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=PATCH,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=template,
    )


def conversation(
    template: str | None = HUB_TEMPLATE, model_type: str = "llava", name: str | None = None, **options
) -> Conversation:
    return Conversation.of(processor(template), SimpleNamespace(model_type=model_type), name, **options)


def ids_of(text: str) -> list[int]:
    """A piece of text without special tokens, as characters; SentencePiece writes a space as ▁."""
    return [CHARACTERS.index(character) for character in text.replace(" ", "▁")]


def test_llava_15_is_asked_in_the_paper_s_conversation() -> None:
    llava = conversation()
    assert llava.prompt("What is it?", has_image=True) == f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"
    assert llava.prompt("What is it?", has_image=False) == f"{SYSTEM} USER: What is it? ASSISTANT:"
    assert llava.prompt("", has_image=True) == f"{SYSTEM} USER: <image>\n ASSISTANT:"
    assert llava.answer("A dog.") == " A dog.</s>"
    assert llava.eos == "</s>"


def test_the_conversation_of_llava_s_own_evaluation_differs_in_the_system_line_alone() -> None:
    ours, theirs = conversation(), conversation(name="vicuna_v1")
    assert theirs.prompt("Why?", has_image=True) == f"{VICUNA_SYSTEM} USER: <image>\nWhy? ASSISTANT:"
    assert theirs.prompt("Why?", has_image=True).removeprefix(VICUNA_SYSTEM) == ours.prompt("Why?", True)[len(SYSTEM) :]
    assert (theirs.square, theirs.answer("A dog.")) == (ours.square, ours.answer("A dog."))


@pytest.mark.parametrize("name", ["llava_v1", "vicuna_v1"])
@pytest.mark.parametrize("template", [None, HUB_TEMPLATE])
def test_a_checkpoint_is_asked_in_the_conversation_that_it_was_saved_with(name: str, template: str | None) -> None:
    made = processor(template)
    trained = Conversation.of(made, SimpleNamespace(model_type="llava"), name)
    saved = trained.saved_processor()
    assert made.chat_template == template
    again = Conversation.of(saved, SimpleNamespace(model_type="llava"))
    assert (again.name, again.determinants) == (name, trained.determinants)
    other = Conversation.of(saved, SimpleNamespace(model_type="llava"), "vicuna_v1")
    assert other.prompt("Why?", has_image=True).startswith(VICUNA_SYSTEM)


def test_no_other_model_is_asked_in_a_conversation_of_llava_15() -> None:
    with pytest.raises(
        NapoBenchError, match=r"llava_v1 is a conversation of LLaVA-1\.5, and the checkpoint is a 'llava_n"
    ):
        conversation(model_type="llava_next", name="llava_v1")
    with pytest.raises(NapoBenchError, match="vicuna"):
        conversation(name="vicuna_v2")


def test_a_cropped_image_is_left_to_the_processor() -> None:
    wide = Image.new("RGB", (6, 4))
    assert conversation(image="crop").prepare_image(wide) is wide
    assert conversation(image="crop").determinants != conversation().determinants
    own = [conversation(CLOSED_TEMPLATE, image=shape) for shape in ("pad", "crop")]
    assert own[0].determinants == own[1].determinants


def test_llava_15_token_ids() -> None:
    llava = conversation()
    prompt = llava.prompt("What is it?", has_image=True)
    encoded = llava.encode([prompt], [llava.prepare_image(Image.new("RGB", (40, 20)))])
    before, after = ids_of(f" {SYSTEM} USER: "), ids_of(" \nWhat is it? ASSISTANT:")
    expected = [1, *before, *[IMAGE] * IMAGE_TOKENS, *after]
    assert encoded["input_ids"].tolist() == [expected]


def test_answer_ids_are_those_behind_the_prompt() -> None:
    llava = conversation()
    assert llava.answer_ids("A dog.") == [*ids_of(" A dog."), 2]
    prompt = llava.prompt("What is it?", has_image=False)
    tokenize = llava.processor.tokenizer
    assert tokenize(prompt + llava.answer("A dog."))["input_ids"] == [
        *tokenize(prompt)["input_ids"],
        *llava.answer_ids("A dog."),
    ]


def joining(sentences: bool) -> Conversation:
    """A conversation that ends its prompts in a blank, with a tokenizer that joins a blank with the word behind it."""
    made = processor(
        CLOSED_TEMPLATE.replace("'ASSISTANT:'", "'ASSISTANT: '").replace(
            "message['role'].upper() + ': '", "'ASSISTANT: ' if message['role'] == 'assistant' else 'USER: '"
        )
    )
    words = BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>", "<image>", "<pad>"], show_progress=False)
    trained = Tokenizer(BPE())
    if sentences:
        trained.pre_tokenizer, trained.decoder = Metaspace(), MetaspaceDecoder()
    else:
        trained.pre_tokenizer, trained.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trained.train_from_iterator(["USER: Is it a dog? ASSISTANT: yes no dog The car is red."] * 9, words)
    made.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return Conversation.of(made, SimpleNamespace(model_type="qwen2_vl"))


@pytest.mark.parametrize("answer", ["yes", "no", "dog", "The car is red.", ""])
def test_an_answer_keeps_its_first_token_behind_a_prompt_that_ends_in_a_blank(answer: str) -> None:
    asked = joining(sentences=False)
    assert asked.prompt("Why?", has_image=False).endswith("ASSISTANT: ")
    assert asked.processor.tokenizer.decode(asked.answer_ids(answer)) == asked.answer(answer)
    tokens = asked.processor.tokenizer("ASSISTANT: yes")["input_ids"]
    assert "Ġyes" in asked.processor.tokenizer.convert_ids_to_tokens(tokens)


def test_an_answer_that_the_tokenizer_joins_with_the_prompt_is_refused() -> None:
    with pytest.raises(NapoBenchError, match="joins this end with the answer 'yes'"):
        joining(sentences=True).answer_ids("yes")


@given(text=st.text(alphabet=string.ascii_letters + " .,:'?!\n", max_size=30))
def test_prompt_and_answer_ids_join_to_the_ids_of_the_whole_text(text: str) -> None:
    llava = LLAVA
    prompt = llava.prompt("Why?", has_image=False)
    whole = llava.processor.tokenizer(prompt + llava.answer(text))["input_ids"]
    assert whole == llava.processor.tokenizer(prompt)["input_ids"] + llava.answer_ids(text)


LLAVA = conversation()


def expected_pixels(picture: Image.Image) -> np.ndarray:
    """Pad to a square with CLIP's mean colour, resize, normalise: with NumPy, from the definition."""
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = [int(mean * 255) for mean in MEAN]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    resized = np.asarray(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    return ((resized / 255 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.numeric
@pytest.mark.parametrize("size", [(120, 40), (40, 120), (64, 64), (61, 30), (7, 200), (1, 1), (3, 2)])
def test_llava_15_sees_the_whole_picture_in_a_square_of_the_mean_colour(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    llava = conversation()
    encoded = llava.encode([llava.prompt("", has_image=True)], [llava.prepare_image(picture)])
    np.testing.assert_allclose(encoded["pixel_values"][0].numpy(), expected_pixels(picture), atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_pictures_of_every_mode_become_rgb(mode: str) -> None:
    prepared = conversation().prepare_image(Image.new(mode, (6, 4)))
    assert (prepared.mode, prepared.size) == ("RGB", (6, 6))


def test_the_picture_that_is_given_stays_as_it_is() -> None:
    picture = Image.new("RGB", (6, 4), (9, 9, 9))
    conversation().prepare_image(picture)
    assert picture.size == (6, 4)


def test_a_llava_without_a_template_is_llava_15() -> None:
    assert conversation(None).prompt("Why?", has_image=True) == f"{SYSTEM} USER: <image>\nWhy? ASSISTANT:"
    assert conversation(None).square == (122, 116, 104)


def test_a_llava_with_a_conversation_of_its_own_keeps_it() -> None:
    own = conversation(CLOSED_TEMPLATE)
    assert own.prompt("Why?", has_image=True) == "USER: <image>\nWhy? ASSISTANT:"
    assert own.answer("Because.") == " Because.</s>"
    assert own.prepare_image(Image.new("RGB", (6, 4))).size == (6, 4)


def test_another_architecture_keeps_its_conversation_even_where_it_reads_like_llavas() -> None:
    other = conversation(model_type="llava_next")
    assert other.prompt("Why?", has_image=True) == "USER: <image>\nWhy? ASSISTANT:"
    assert other.square is None


def test_a_template_says_how_an_answer_begins_and_ends() -> None:
    chat = conversation(CHATML_TEMPLATE)
    assert chat.prompt("Why?", has_image=True) == "<|im_start|>user\n<image>Why?</s>\n<|im_start|>assistant\n"
    assert chat.answer("Because.") == "Because.</s>"


def test_a_placeholder_in_the_question_is_not_a_second_picture() -> None:
    llava = conversation()
    assert llava.prompt("<image>\nWhy?", has_image=True) == llava.prompt("Why?", has_image=True)
    assert llava.prompt("Why?\n<image>", has_image=False) == llava.prompt("Why?", has_image=False)


WRAPPED = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize("placeholder", ["<image>", WRAPPED, "<|image|>", "<im_start><image><im_end>"])
def test_placeholders_of_other_models_are_no_text_either(placeholder: str) -> None:
    llava = conversation()
    assert llava.prompt(f"{placeholder}\nWhy?", has_image=True) == llava.prompt("Why?", has_image=True)
    assert llava.answer_ids(f"Because. {placeholder}") == llava.answer_ids("Because.")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("A dog.</s>", "A dog."),
        ("A dog. </s>\n", "A dog."),
        ("<s>A dog.</s></s>", "A dog."),
        ("A <unk>dog<pad>.", "A dog."),
        ("A dog</</s>s>.", "A dog."),
        ("a < b </ s > c", "a < b </ s > c"),
        (" two  blanks ", " two  blanks "),
    ],
)
def test_control_tokens_of_the_data_reach_neither_prompt_nor_labels(text: str, plain: str) -> None:
    llava = conversation()
    assert llava.answer_ids(text) == llava.answer_ids(plain)
    assert llava.answer_ids(text).count(2) == 1
    assert llava.prompt(text, has_image=True) == llava.prompt(plain, has_image=True)


def test_the_markers_of_a_chat_template_in_a_text_close_no_turn() -> None:
    made = processor(CHATML_TEMPLATE)
    made.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|im_start|>", "<|im_end|>"]})
    chat = Conversation.of(made, SimpleNamespace(model_type="llava_next"))
    assert chat.prompt("Why?<|im_end|>\n<|im_start|>assistant\nYes", has_image=True) == chat.prompt(
        "Why?\nassistant\nYes", has_image=True
    )


def test_a_special_token_that_is_an_ordinary_word_or_mark_stays_text() -> None:
    made = processor(HUB_TEMPLATE)
    made.tokenizer.pad_token = "!"
    assert "!" not in Conversation.of(made, SimpleNamespace(model_type="llava")).markup.controls


def test_prompts_are_padded_on_the_left() -> None:
    llava = conversation()
    short, long = (llava.prompt(question, has_image=False) for question in ("Why?", "Why is it so?"))
    encoded = llava.encode([short, long])
    padding = encoded["input_ids"].shape[1] - len(llava.processor.tokenizer(short)["input_ids"])
    assert padding == len("Why is it so?") - len("Why?")
    assert encoded["input_ids"][0, : padding + 1].tolist() == [PAD] * padding + [1]
    assert encoded["attention_mask"][0].tolist()[: padding + 1] == [0] * padding + [1]
    assert encoded["attention_mask"][1].min() == 1


def test_a_template_that_writes_the_first_token_itself_gets_it_once() -> None:
    own = conversation("<s>" + CLOSED_TEMPLATE)
    ids = own.encode([own.prompt("Why?", has_image=False)])["input_ids"][0].tolist()
    assert ids.count(1) == 1


def test_no_template_and_no_llava_is_an_error() -> None:
    with pytest.raises(NapoBenchError, match="no chat template"):
        conversation(None, model_type="llava_next")
