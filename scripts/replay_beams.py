"""Write what the authors' version of transformers answers by three beams, to tests/engines/beams_reference.json.

    pip install transformers==4.37.2 tokenizers==0.15.1 torch safetensors "numpy<2"
    python scripts/replay_beams.py tests/engines/beams_reference.json

LLaVA's `generate` passes the prompt as embeddings, and so does this script. The model is the language model of the
micro world's base. Its logits are divided by `FLATTER`, so that beams of different lengths compete. The test
`test_hf.py::test_three_beams_are_those_of_the_authors_version` compares napo-bench with the file. transformers 4.35.0,
which RLAIF-V pins, answers the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

BASE = Path(__file__).resolve().parents[1] / "napo_bench/micro/base"
FLATTER = 2.5
MAX_NEW_TOKENS = 48
SUBJECTS = ("a red ball", "the blue bear", "a cat", "two dogs", "the green car", "a yellow tree")
QUESTIONS = (
    "Is there {} in this image?",
    "What color is {}?",
    "How many {} are there?",
    "Describe this image with {}.",
    "Where is {}?",
    "{}",
)


def main(out: Path) -> None:
    config = json.loads((BASE / "config.json").read_text())["text_config"]
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    weights = {
        name.replace("language_model.model.", "model.")
        .replace("model.language_model.", "model.")
        .replace("language_model.lm_head", "lm_head"): weight
        for name, weight in load_file(BASE / "model.safetensors").items()
    }
    kept = {name: weight for name, weight in weights.items() if name in model.state_dict()}
    kept["lm_head.weight"] = kept["lm_head.weight"] / FLATTER
    model.load_state_dict(kept)
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    cases = []
    for question in (template.format(subject) for template in QUESTIONS for subject in SUBJECTS):
        ids = torch.tensor([tokenizer.encode(f"USER: {question} ASSISTANT:").ids])
        with torch.inference_mode():
            (answer,) = model.generate(
                inputs_embeds=model.get_input_embeddings()(ids),
                num_beams=3,
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=0,
                eos_token_id=2,
                use_cache=True,
            )
        cases.append({"question": question, "prompt": ids[0].tolist(), "answer": [i for i in answer.tolist() if i > 2]})
    stored = {"transformers": transformers.__version__, "flatter": FLATTER, "max_new_tokens": MAX_NEW_TOKENS}
    lines = ",\n".join(json.dumps(case) for case in cases)
    out.write_text(
        f'{{\n"made_by": "scripts/replay_beams.py",\n"settings": {json.dumps(stored)},\n"cases": [\n{lines}\n]\n}}\n'
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
