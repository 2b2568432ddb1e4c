"""The options that name judges, and the judges that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from napo_bench.core.errors import NapoBenchError

if TYPE_CHECKING:
    from napo_bench.core.progress import Progress
    from napo_bench.core.thoughts import Marks
    from napo_bench.engines.judge import Judge

JudgeModel = Annotated[
    list[str] | None,
    typer.Option(
        help="The LLM judge, as NAME or NAME@URL; repeatable: each judge rates every answer. "
        "Default: $NAPO_BENCH_JUDGE_MODEL."
    ),
]
JudgeRepeats = Annotated[int, typer.Option(min=1, help="Each judge rates every answer this many times.")]
JudgeBaseUrl = Annotated[
    str | None,
    typer.Option(
        help="OpenAI-compatible endpoint of judges without @URL. Default: $NAPO_BENCH_JUDGE_BASE_URL, else OpenAI's."
    ),
]
JudgeMaxRequests = Annotated[
    int | None,
    typer.Option(min=1, help="Stop after this many HTTP requests, retries included, of all judges; replies are kept."),
]
JudgeRequest = Annotated[
    list[str] | None,
    typer.Option(
        help="key=value: a further request field (reasoning_effort=low); null leaves a field out. Repeatable."
    ),
]


@dataclass(frozen=True)
class GivenJudges:
    """What the user says about judges; each attribute is the option of its name."""

    model: Sequence[str] | None
    repeats: int
    base_url: str | None
    max_requests: int | None
    request: Sequence[str] | None

    def judges(self, max_refused: float, marks: Marks, progress: Progress) -> tuple[Judge, ...]:
        """The judges of the options and the environment.

        Args:
            max_refused: Share of the prompts that the endpoint of a judge may refuse.
            marks: Marks around thoughts.
            progress: Progress of each judge.

        Raises:
            NapoBenchError: as `configured_judges`.
        """
        from napo_bench.engines.chat import read_request_fields
        from napo_bench.engines.judge_options import JudgeOptions, configured_judges, judge_journal

        fields = read_request_fields(self.request or [], "--judge-request")
        options = JudgeOptions(
            self.model or (), self.base_url, self.max_requests, fields, max_refused, marks, self.repeats
        )
        return configured_judges(options, judge_journal(), progress)

    def require_none(self) -> None:
        """Raise a NapoBenchError if an option is given, because the micro world has a judge of its own."""
        if self != GivenJudges(None, 1, None, None, None):
            raise NapoBenchError(
                "The micro world has a judge of its own, which needs no option.",
                "Leave out the options that begin with --judge. To ask another judge about the answers of a run: "
                "napo-bench score mmhal --responses RUN/responses/mmhal.json --data-dir DIR, with the data folder that "
                "run.json names.",
            )
