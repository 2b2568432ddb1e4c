"""Values of variables of a checkpoint's chat template: what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_llava import make_checkpoint

from napo_bench.core.errors import NapoBenchError
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation

THINKS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}{% generation %}<think>\n\n</think>\n\n"
    "{% endgeneration %}{% endif %}{% if style %}{{ style.tone }}{% endif %}{% endif %}"
)
QUESTION = "<|im_start|>user\n<image>Why?</s>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The configuration and the processor of a tiny LLaVA whose template can switch its thoughts off."""
    folder = tmp_path_factory.mktemp("thinks")
    make_checkpoint(folder)
    config, processor = Checkpoint.open(str(folder)).open_texts()
    processor.chat_template = THINKS
    return config, processor


def conversation(parts: tuple[Any, Any], **variables: object) -> Conversation:
    config, processor = parts
    return Conversation.of(processor, config, variables=variables)


def test_the_value_of_a_variable_changes_the_prompt(parts: tuple[Any, Any]) -> None:
    assert conversation(parts).prompt("Why?", has_image=True) == QUESTION
    assert conversation(parts, enable_thinking=True).prompt("Why?", has_image=True) == QUESTION
    off = conversation(parts, enable_thinking=False, style={"tone": "Short: "})
    assert off.prompt("Why?", has_image=True) == QUESTION + "<think>\n\n</think>\n\nShort: "


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("enable_thinkin", "there is no variable 'enable_thinkin'", "Did you mean enable_thinking?"),
        ("message", "there is no variable 'message'", "Choose one of enable_thinking, style."),
        ("messages", "'messages', which napo-bench or transformers sets itself", "Leave it out."),
        ("add_generation_prompt", "'add_generation_prompt', which napo-bench or transformers", "Leave it out."),
        ("tokenize", "'tokenize', which napo-bench or transformers sets itself", "Leave it out."),
    ],
)
def test_a_variable_that_would_change_nothing_is_refused(
    name: str, message: str, hint: str, parts: tuple[Any, Any]
) -> None:
    with pytest.raises(NapoBenchError) as caught:
        conversation(parts, **{name: 1})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_conversation_of_llava_15_has_no_variables(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    config, processor = Checkpoint.open(str(tmp_path)).open_texts()
    with pytest.raises(NapoBenchError, match=r"the prompt of this checkpoint \(llava_v1\) has no variables"):
        Conversation.of(processor, config, variables={"enable_thinking": False})


def test_a_damaged_template_is_named_by_its_first_use(parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts[1], "chat_template", THINKS + "{% if %}")
    with pytest.raises(NapoBenchError, match="chat template cannot be used: TemplateSyntaxError"):
        conversation(parts)
