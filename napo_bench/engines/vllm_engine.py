"""The engine `vllm`: a checkpoint in vLLM, in this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch

from napo_bench.core.errors import NapoBenchError
from napo_bench.engines import SEED, vllm_limits
from napo_bench.engines.answer import Completion
from napo_bench.engines.checkpoint_engine import CheckpointEngine, ends_of, is_cut_off
from napo_bench.engines.decoding.asked_beams import Following, searched
from napo_bench.engines.decoding.search import Rules
from napo_bench.engines.engine import EngineOptions, Prompt
from napo_bench.engines.finite import not_finite
from napo_bench.engines.vllm_limits import USE_HF, version
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.device import require_device, require_dtype
from napo_bench.models.explained import first_line
from napo_bench.models.families import family_of
from napo_bench.models.quantization import described, stored_kind
from napo_bench.models.whole import whole_folder

_BATCHES_AT_ONCE = 8
_MOST_LOGPROBS = 256


class VLLMEngine(CheckpointEngine):
    """Generates answers in vLLM, greedily or by beams.

    Prompts, images, and ends of answers are those of the engine `hf`, and so are the answers, except that vLLM's
    arithmetic rounds differently. vLLM's prefix cache keeps what the prompts about one image have in common.

    Args:
        pretrained: Checkpoint: a local folder or a hub name.
        options: Options of the run. vLLM answers `batch_size` prompts at a time.

    Raises:
        NapoBenchError: vLLM is not installed, several processes run, the checkpoint cannot be loaded, or vLLM has no
            equivalent of an option or of a setting of the checkpoint.
    """

    name = "vllm"
    takes = frozenset(
        {
            *("batch_size", "device", "dtype", "trust_remote_code", "thinking_marks"),
            *("conversation", "chat_template_kwargs"),
        }
    )
    shares_images = True

    def __init__(self, pretrained: str, options: EngineOptions) -> None:
        require_dtype(options.dtype)
        require_device(options.device)
        self.device = vllm_limits.platform()
        vllm_limits.require_alone()
        self._devices = vllm_limits.devices(options.device, self.device)
        half = "bfloat16" if self.device == "cuda" else "float32"
        self.dtype = half if options.dtype == "auto" else options.dtype
        self._at_a_time = options.batch_size
        # vLLM begins with the next prompt as soon as an answer is finished, so it gets several batches at once.
        self.batch_size = _BATCHES_AT_ONCE * options.batch_size
        self._most_pictures = 1
        self._trust_remote_code = options.trust_remote_code
        self._checkpoint = Checkpoint.open(str(pretrained), trust_remote_code=options.trust_remote_code)
        config, processor = self._checkpoint.open_parts()
        self._config = config
        self._quantization = stored_kind(config)
        self._of_processor = dict(family_of(config).processor)
        self._of_checkpoint = vllm_limits.generation_of(self._checkpoint, config)
        super().__init__(
            self._checkpoint,
            config,
            processor,
            options.conversation,
            options.chat_template_kwargs,
            options.thinking_marks,
            shares=False,
        )

    @classmethod
    def open(cls, checkpoint: str, options: EngineOptions) -> Self:
        """See Engine."""
        return cls(checkpoint, options)

    @cached_property
    def model(self) -> Any:
        """The model in vLLM, loaded for the first answer that is not in the journal.

        Raises:
            NapoBenchError: vLLM cannot load the checkpoint.
        """
        from vllm import LLM

        folder = whole_folder(self._checkpoint, self._config, self.dtype)
        try:
            return LLM(
                model=str(folder),
                dtype=self.dtype,
                seed=SEED,
                trust_remote_code=self._trust_remote_code,
                tensor_parallel_size=self._devices,
                gpu_memory_utilization=vllm_limits.memory_share(self.device),
                max_num_seqs=self._at_a_time,
                use_tqdm_on_load=False,
                max_model_len=-1,  # as long as the model and the memory allow
                max_logprobs=_MOST_LOGPROBS,
                enable_prefix_caching=True,
                limit_mm_per_prompt={"image": self._most_pictures, "video": 0},  # for videos vLLM would keep memory
                mm_processor_kwargs=self._of_processor,
                generation_config="vllm",  # the checkpoint's settings are in the requests
            )
        except Exception as error:  # whatever vLLM raises
            raise NapoBenchError(
                f"vLLM {version()} cannot load {folder}: {type(error).__name__}: {first_line(error)}",
                f"VLLM_LOGGING_LEVEL=INFO shows what vLLM says itself. {USE_HF}",
            ) from error

    def require_pictures(self, count: int) -> None:
        """See PromptWriter. vLLM is loaded for as many images in a prompt."""
        super().require_pictures(count)
        self._most_pictures = max(1, count)

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """See Engine. Raises NapoBenchError also if the logits are not finite, or if vLLM writes a prompt in other
        tokens.
        """
        generation = prompts[0].generation
        ends = ends_of(self._of_checkpoint)
        _ = self.model  # the stage is without the time of loading
        with self.clock("prefill and decoding") as count:
            if generation.num_beams > 1:
                answers, tokens = self._searched(prompts, ends)
                cut_off = [is_cut_off(answer, generation, ends) for answer in answers]
            else:
                settings = self._settings(max_tokens=generation.max_new_tokens, logprobs=0)
                asked = self._asked([(prompt, ()) for prompt in prompts], settings)
                answers = [list(one.outputs[0].token_ids) for one in asked]
                cut_off = [one.outputs[0].finish_reason == "length" for one in asked]
                tokens = sum(len(one.prompt_token_ids) for one in asked)
            count(tokens)
        with self._encoder.tokenizing:
            return [
                self.completion(answer, generation, is_cut) for answer, is_cut in zip(answers, cut_off, strict=True)
            ]

    def identity(self, prompt: Prompt) -> dict[str, Any]:
        """See Engine. Raises NapoBenchError for generation settings that vLLM has no equivalent of."""
        generation = prompt.generation
        if generation.do_sample:
            what = "beams with draws" if generation.num_beams > 1 else "the draws of transformers"
            raise NapoBenchError(
                f"The generation settings ask for draws at temperature {generation.temperature}; the engine vllm has "
                f"no equivalent of {what}.",
                f"Use the generation profile greedy or rlaif-v. {USE_HF}",
            )
        if generation.num_beams > 1 and self._penalty != 1.0:
            raise NapoBenchError(
                f"The generation settings ask for {generation.num_beams} beams, and the checkpoint's "
                f"generation_config.json for a repetition_penalty of {self._penalty}; the engine vllm has no "
                "equivalent of both together.",
                f"Use the generation profile greedy. {USE_HF}",
            )
        return {
            **super().identity(prompt),
            "dtype": self.dtype,
            "vllm": version(),
            **({"quantization": self._quantization} if self._quantization else {}),
        }

    def provenance(self) -> dict[str, Any]:
        """See Engine."""
        quantized = {"quantization": described(self._quantization)} if self._quantization else {}
        spread = {"devices": self._devices} if self._devices > 1 else {}
        return {"dtype": self.dtype, "device": self.device, "vllm": version(), **spread, **quantized}

    def remarks(self) -> list[str]:
        """See Engine."""
        return [f"answered by vLLM {version()}"]

    @property
    def _penalty(self) -> float:
        return float(self._of_checkpoint.repetition_penalty or 1.0)

    @property
    def never(self) -> list[int]:
        """The tokens that are never part of an answer."""
        return list(self._of_checkpoint.suppress_tokens or ())

    def _settings(self, **settings: Any) -> Any:
        """The settings of a request. The settings of the checkpoint are those that transformers takes."""
        from vllm import SamplingParams

        return SamplingParams(
            temperature=0.0,
            repetition_penalty=self._penalty,
            stop_token_ids=ends_of(self._of_checkpoint),
            ignore_eos=True,  # the tokens above end an answer, and no other
            logit_bias=dict.fromkeys(self.never, -math.inf) or None,
            detokenize=False,
            **settings,
        )

    def _searched(self, prompts: Sequence[Prompt], ends: Sequence[int]) -> tuple[list[list[int]], int]:
        """The tokens of answers by beams, and the number of tokens of the prompts."""
        generation, never, tokens = prompts[0].generation, set(self.never), dict[int, int]()

        def stops(ids: Any) -> Any:
            return torch.isin(ids[:, -1], torch.tensor(ends)) | (ids.shape[1] >= generation.max_new_tokens)

        rules = Rules(
            processors=None,
            stops=stops,
            ends=len(ends),
            beams=generation.num_beams,
            draws=False,
            length_penalty=self._of_checkpoint.length_penalty or 1.0,
            early_stopping=self._of_checkpoint.early_stopping or False,
            max_new_tokens=generation.max_new_tokens,
        )
        settings = self._settings(max_tokens=1, logprobs=rules.candidates + len(self.never))

        def ask(rows: list[tuple[int, list[int]]]) -> Following:
            asked = self._asked([(prompts[place], answer) for place, answer in rows], settings)
            for (place, answer), one in zip(rows, asked, strict=True):
                tokens.setdefault(place, len(one.prompt_token_ids) - len(answer))
            likeliest = [one.outputs[0].logprobs[0] for one in asked]
            return [{token: found.logprob for token, found in row.items() if token not in never} for row in likeliest]

        return searched(rules, len(prompts), ask), sum(tokens.values())

    def _asked(self, rows: Sequence[tuple[Prompt, Sequence[int]]], settings: Any) -> list[Any]:
        """The outputs of vLLM for prompts and the beginnings of their answers."""
        model, (first, begun) = self.model, rows[0]
        try:
            outputs: list[Any] = model.generate([self._row(*row) for row in rows], settings, use_tqdm=False)
        except Exception as error:  # whatever vLLM raises
            for prompt, _ in rows:
                self._encoder.whole([prompt])  # says it if the processor cannot take an image
            raise NapoBenchError(
                f"vLLM {version()} cannot answer: {type(error).__name__}: {first_line(error)}",
                f"If memory is short: --batch-size {max(1, self._at_a_time // 2)}. {USE_HF}",
            ) from error
        if not begun:
            self._require_tokens(first, list(outputs[0].prompt_token_ids))
        if not all(math.isfinite(one.outputs[0].cumulative_logprob) for one in outputs):
            raise not_finite(self.dtype, "")
        return outputs

    def _row(self, prompt: Prompt, answer: Sequence[int]) -> dict[str, Any]:
        """A prompt for vLLM, in the tokens of its conversation. vLLM puts the tokens of images in their places."""
        row: dict[str, Any] = {"prompt_token_ids": [*self._encoder.ids(prompt.text), *answer]}
        if prompt.images:
            digests = [prompt.digest] if not prompt.further else [self.digest(image) for image in prompt.images]
            row |= {"multi_modal_data": {"image": prompt.images}, "multi_modal_uuids": {"image": digests}}
        return row

    def _require_tokens(self, prompt: Prompt, found: list[int]) -> None:
        """Refuse a vLLM that gives the model other tokens of a prompt than transformers."""
        expected: list[int] = self._encoder.whole([prompt])["input_ids"][0].tolist()
        if found != expected:
            raise NapoBenchError(
                f"vLLM {version()} gives the model {len(found)} tokens of a prompt that has {len(expected)} tokens in "
                f"transformers, or other tokens. The prompt ends with {prompt.text[-40:]!r}.",
                USE_HF,
            )
