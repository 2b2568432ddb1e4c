"""The first prompts of a suite, as the model gets them: for a look before a run, and for the samples of a run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks.question import Question
from napo_bench.engines.windows import prompt_of
from napo_bench.runs.questions import TaskQuestions

if TYPE_CHECKING:
    from napo_bench.engines.prompt import Prompt, PromptWriter
    from napo_bench.engines.request import Request

KEPT = 2
"""Number of questions of each benchmark whose samples contain the prompt."""


def first_sent(writer: PromptWriter, tasks: Sequence[TaskQuestions]) -> dict[Question, dict[str, Any]]:
    """The prompts of the first questions of each benchmark.

    Args:
        writer: Engine that answers the questions, or what writes its prompts.
        tasks: The questions.
    """
    texts: dict[Hashable, str] = {}
    kept: dict[str, int] = {}
    found: dict[Question, dict[str, Any]] = {}
    for task in tasks:
        before = kept.get(task.benchmark.name, 0)
        prompts = _prompts(writer, task.requests(KEPT - before), texts)
        kept[task.benchmark.name] = before + len(prompts)
        found |= {question: writer.sent(prompt) for question, prompt in zip(task.questions, prompts, strict=False)}
    return found


def shown(writer: PromptWriter, tasks: Sequence[TaskQuestions]) -> dict[str, dict[str, Any]]:
    """Task -> its first prompt."""
    texts: dict[Hashable, str] = {}
    return {task.name: writer.sent(_prompts(writer, task.requests(1), texts)[0]) for task in tasks}


def _prompts(writer: PromptWriter, requests: Sequence[Request], texts: dict[Hashable, str]) -> list[Prompt]:
    return [
        prompt_of(writer, request, [writer.look(picture) for picture in request.pictures], texts)
        for request in requests
    ]
