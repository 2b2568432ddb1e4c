"""The part of vLLM that the engine `vllm` uses, with transformers as the model: for machines without vLLM.

Names, keywords and fields are vLLM's: `test_vllm.py::test_the_stand_in_has_the_signatures_of_vllm` compares them where
vLLM is installed. One prompt is answered after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

__version__ = "0.33.0"


@dataclass
class SamplingParams:
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    logit_bias: dict[int, float] | None = None


@dataclass
class Logprob:
    logprob: float


@dataclass
class CompletionOutput:
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


class LLM:
    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        seed: int,
        trust_remote_code: bool,
        tensor_parallel_size: int,
        gpu_memory_utilization: float,
        max_num_seqs: int,
        use_tqdm_on_load: bool,
        max_model_len: int,
        max_logprobs: int,
        enable_prefix_caching: bool,
        limit_mm_per_prompt: dict[str, int],
        mm_processor_kwargs: dict[str, Any],
        generation_config: str,
    ) -> None:
        assert (enable_prefix_caching, generation_config, use_tqdm_on_load) == (True, "vllm", False)
        torch.manual_seed(seed)
        self._processor = AutoProcessor.from_pretrained(model, **mm_processor_kwargs)
        self._model = AutoModelForImageTextToText.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self._limits = limit_mm_per_prompt
        self._most_logprobs = max_logprobs

    def generate(
        self, prompts: Sequence[dict[str, Any]], sampling_params: SamplingParams, *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        return [self._answered(prompt, sampling_params) for prompt in prompts]

    @torch.inference_mode()
    def _answered(self, prompt: dict[str, Any], asked: SamplingParams) -> RequestOutput:
        images = prompt.get("multi_modal_data", {}).get("image", [])
        if len(images) > self._limits["image"]:
            raise ValueError(f"At most {self._limits['image']} image(s) may be provided in one prompt.")
        assert len(prompt.get("multi_modal_uuids", {}).get("image", [])) == len(images)
        assert (asked.temperature, asked.ignore_eos, asked.detokenize) == (0.0, True, False)
        assert asked.logprobs is not None and asked.logprobs <= self._most_logprobs
        ids, shown = self._with_images(prompt["prompt_token_ids"], images)
        made: Any = self._model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            **shown,
            do_sample=False,
            max_new_tokens=asked.max_tokens,
            eos_token_id=asked.stop_token_ids or None,
            repetition_penalty=asked.repetition_penalty,
            suppress_tokens=list(asked.logit_bias or ()) or None,
            return_dict_in_generate=True,
            output_logits=True,
        )
        tokens = made.sequences[0, len(ids) :].tolist()
        shares = [step[0].float().log_softmax(-1) for step in made.logits]
        best = [share.topk(max(1, asked.logprobs)) for share in shares]
        likeliest = [
            {token: Logprob(value) for token, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)}
            for top in best
        ]
        total = sum(share[token].item() for share, token in zip(shares, tokens, strict=True))
        end = "stop" if tokens[-1] in (asked.stop_token_ids or ()) else "length"
        return RequestOutput(ids, [CompletionOutput(tokens, total, likeliest, end)])

    def _with_images(self, given: list[int], images: list[Any]) -> tuple[list[int], dict[str, Any]]:
        """The tokens with those of each image in its place, and the model's inputs with the pixels."""
        if not images:
            return given, {}
        place, mark = self._processor.image_token_id, self._processor.image_token
        alone = [self._processor(text=[mark], images=[image], return_tensors="pt") for image in images]
        counts = iter([int((one["input_ids"] == place).sum()) for one in alone])
        ids = [token for one in given for token in ([one] * next(counts) if one == place else [one])]
        seen = self._processor.image_processor(images, return_tensors="pt")
        shown = {
            name: value.to(self._model.dtype) if value.is_floating_point() else value for name, value in seen.items()
        }
        if "mm_token_type_ids" in alone[0]:
            shown["mm_token_type_ids"] = (torch.tensor([ids]) == place).long()
        return ids, shown
