"""One training run: rows, reference log-probs, training, and the trained checkpoint.

The output folder is a plain checkpoint (or adapter) with, beside it:
    training.json     what determines the run, and whether it is finished
    recipe.yaml       the resolved recipe
    README.md         the model card: base, rows, and their licences
    rows.json         rows left out, by reason, rows that lack a negative, and rows with control tokens in their texts
    train_log.jsonl   one line a logging step
    checkpoints/      what `--resume` goes on from, until the run is finished
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.integration_utils import TensorBoardCallback

from napo_bench.core import caches, digests, files, interrupts, links, locks, processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import CONTROLS
from napo_bench.core.progress import SILENT, Progress
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.image_tokens import require_image_token
from napo_bench.trainers import output
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.card import write_card
from napo_bench.trainers.controls import BLIND, SWAPPED, BlankImages, OtherImages
from napo_bench.trainers.forward.logps import prepare
from napo_bench.trainers.means import require_whole_groups
from napo_bench.trainers.recipe import Recipe
from napo_bench.trainers.reference import Examiner, compute_reference, read_reference, reference_folder, rows_missing
from napo_bench.trainers.rows import PreferenceRows, open_rows
from napo_bench.trainers.trainer import PreferenceTrainer

CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run, opened and checked."""

    checkpoint: Checkpoint
    conversation: Conversation
    config: Any
    rows: PreferenceRows


def _require_same_adapter(folder: Path, is_original: bool, recipe: Recipe) -> None:
    """Refuse an adapter that the recipe cannot train further: one of another size or kind."""
    where = folder / "adapter_config.json"
    said = files.read_json(where)
    if is_original or said.get("peft_type") != "LORA":
        kind = "of LLaVA's original layout" if is_original else f"a {said.get('peft_type')} adapter"
        raise NapoBenchError(
            f"{recipe.base} is an adapter {kind}; the recipe trains a LoRA of PEFT further (lora_r: {recipe.lora_r}).",
            "Train all weights of the merged model: --set lora_r=0",
        )
    wanted = {"r": recipe.lora_r, "lora_alpha": recipe.lora_alpha}
    own = {name: files.field(said, name, (int, float), str(where)) for name in wanted}
    if own != wanted:
        raise NapoBenchError(
            f"{where}: r is {own['r']:g} and lora_alpha is {own['lora_alpha']:g}; the recipe has "
            f"lora_r {recipe.lora_r} and lora_alpha {recipe.lora_alpha:g}, and trains this adapter further.",
            f"--set lora_r={own['r']:g} --set lora_alpha={own['lora_alpha']:g}, or train all weights of the merged "
            "model: --set lora_r=0",
        )


def open_inputs(recipe: Recipe, cache: Path | None) -> Inputs:
    """Open the checkpoint's processor and the rows, without its weights. Every process of a launch calls this function.

    Args:
        recipe: Recipe of the training.
        cache: See `train`.

    Raises:
        NapoBenchError: the processor or the rows cannot be used for this recipe.
    """
    return digests.hashed_by_first(lambda: _open_inputs(recipe, cache))


def _open_inputs(recipe: Recipe, cache: Path | None) -> Inputs:
    checkpoint = Checkpoint.open(recipe.base)
    if checkpoint.adapter is not None and recipe.lora_r:
        _require_same_adapter(checkpoint.adapter, checkpoint.original is not None, recipe)
    config, processor = checkpoint.open_parts()
    require_image_token(recipe.base, processor, config)
    named = None if recipe.conversation == "auto" else recipe.conversation
    conversation = Conversation.of(processor, config, named, recipe.training_image)
    rows = open_rows(
        recipe.data,
        recipe.negatives,
        caches.training_place(cache, "rows"),
        conversation,
        strip=recipe.strip_responses,
    )
    if recipe.control == BLIND:
        rows.images = BlankImages(conversation.blank_image)
    elif recipe.control == SWAPPED:
        rows.images = OtherImages.of(rows.image_digests(), rows.own_image, recipe.seed)
    return Inputs(checkpoint, conversation, config, rows)


def train(
    recipe: Recipe,
    out: Path,
    *,
    cache: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Train a checkpoint on preference rows.

    Under torchrun or accelerate launch every process calls this with the same arguments.

    Args:
        recipe: Recipe of the training. Its `base` is also the reference.
        out: Output folder.
        cache: Folder for copies of rows and reference log-probs, which runs share; the user's cache folder by default.
        resume: Whether to continue the run in `out`. A finished run stays unchanged, and an empty folder gets a new
            run.
        progress: Progress of each pass, in the first process.

    Returns:
        `out`.

    Raises:
        NapoBenchError: an error that the user can fix.
        Interrupted: SIGINT or SIGTERM came during a step. The step is saved, and `resume` continues from there.
    """
    with locks.output_folder(out):
        links.refuse_links(caches.training_place(cache, "rows").parent)
        return _train(recipe, out, cache, resume, progress)


def _train(recipe: Recipe, out: Path, cache: Path | None, resume: bool, progress: Progress) -> Path:
    for name in recipe.report_to:
        if find_spec(name) is None:
            raise NapoBenchError(f"report_to asks for {name}, which is not installed.", f"pip install {name}")
    require_whole_groups(recipe, processes.count())
    args = _training_arguments(recipe, out)
    if is_deepspeed_zero3_enabled():  # type: ignore[no-untyped-call]
        raise NapoBenchError(
            "DeepSpeed ZeRO 3 partitions the weights before the reference log-probs are computed.",
            "Launch with ZeRO 2 (trainers/recipes/accelerate/deepspeed.yaml), or with FSDP (fsdp.yaml there).",
        )
    first = processes.is_first()
    progress = progress if first else SILENT
    inputs = open_inputs(recipe, cache)
    run = {
        "base_fingerprint": digests.hashed_by_first(inputs.checkpoint.fingerprint),
        "data_fingerprint": inputs.rows.fingerprint,
        "asked_in": inputs.conversation.name,
        "rows_a_step": recipe.per_device_batch_size * recipe.gradient_accumulation * processes.count(),
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }
    if output.is_finished(out, run, resume):
        progress.note(f"{out} is finished already.")
        return out
    if first:
        folders = (CHECKPOINTS, TENSORBOARD)
        links.refuse_links(out, *folders, *(path.name for path in out.iterdir() if not path.is_dir()))
    processes.wait()
    if recipe.control is not None:
        progress.note(f"Control {recipe.control}: every row is trained with {CONTROLS[recipe.control]}.")
    if torch.cuda.device_count() > processes.count() == 1:
        progress.note(f"One of {torch.cuda.device_count()} GPUs is used; torchrun --no-python napo-bench uses more.")
    if first:
        output.describe(out, run, finished=False)
        files.write_text(out / "recipe.yaml", recipe.to_yaml())
    with output.limits_explained(out):
        model = _load_model(inputs.checkpoint, recipe, args)
        folder = reference_folder_of(inputs, recipe, cache)
        with locks.Use(folder):
            store_reference(model, inputs, recipe, folder, progress)
            reference = read_reference(inputs.rows, folder)
        inputs.rows.leave_out(reference.problems)
        if first:
            files.write_json(out / "rows.json", asdict(inputs.rows.report))
        for line in inputs.rows.report.lines():
            progress.note(line)
        if not len(inputs.rows):
            raise NapoBenchError(
                f"{recipe.data}: no row can be trained on.", f"{out / 'rows.json'} says why, row by row."
            )
        last = output.last_checkpoint(out / CHECKPOINTS, processes.count())
        if first:
            output.cut_log(out / output.LOG, last)
            output.drop_cut_off(out / CHECKPOINTS)
        with interrupts.deferred() as signal_seen:
            trainer = PreferenceTrainer(
                with_adapters(model, recipe),
                recipe,
                inputs.rows,
                Collator(inputs.conversation, recipe.crop_seed, (reference.sum, reference.mean)),
                args,
                inputs.conversation.saved_processor(),
                out / output.LOG,
                progress,
                signal_seen,
                _tensorboard(out, last) if first and "tensorboard" in recipe.report_to else (),
            )
            if last:
                trainer.go_on_from(last)
            processes.wait()
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            if trainer.ended_by or trainer.agree_to_end():
                state = trainer.state
                raise interrupts.Interrupted(
                    trainer.ended_by, f"Step {state.global_step:,} of {state.max_steps:,} is saved in {out}."
                )
        _save(trainer, out)
        if first:
            write_card(out, recipe, inputs.rows.report, inputs.conversation.choice)
    if first:
        output.describe(out, run, finished=True)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return out


def _training_arguments(recipe: Recipe, out: Path) -> TrainingArguments:
    renamed = "activation_checkpointing" in TrainingArguments.__dataclass_fields__  # since a later transformers 5
    name = "activation_checkpointing" if renamed else "gradient_checkpointing"
    recomputing: dict[str, Any] = {name: recipe.gradient_checkpointing, f"{name}_kwargs": {"use_reentrant": False}}
    args = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=recipe.per_device_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm or math.inf,  # 0 would also skip the norm, and so the check of gradients
        optim="adamw_torch",
        bf16=recipe.precision == "bf16",
        **recomputing,
        seed=recipe.seed,
        logging_steps=recipe.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        save_total_limit=1,
        run_name=out.name,
        dataloader_num_workers=recipe.workers,
        ddp_find_unused_parameters=recipe.train_vision_tower,
        report_to=[name for name in recipe.report_to if name != "tensorboard"],
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one process uses one GPU, and never nn.DataParallel
    if "wandb" in recipe.report_to:
        os.environ.setdefault("WANDB_DIR", str(out))
    return args


def _load_model(checkpoint: Checkpoint, recipe: Recipe, args: TrainingArguments) -> Any:
    """The checkpoint's model with a frozen tower. An adapter on the model will name its base as the recipe does.

    Under a recipe with LoRA, an adapter stays beside its base and is trained further. Else the adapter is merged.
    """
    if checkpoint.adapter is not None and recipe.lora_r:
        adapted = checkpoint.load_adapted(args.device, stored_dtype(recipe), recipe.lora_dropout)
        prepare(adapted, train_vision_tower=recipe.train_vision_tower)
        return adapted
    model = checkpoint.load_model(args.device, stored_dtype(recipe))
    base = Path(recipe.base)
    model.name_or_path = str(base.resolve()) if base.is_dir() else recipe.base
    prepare(model, train_vision_tower=recipe.train_vision_tower)
    return model


def stored_dtype(recipe: Recipe) -> torch.dtype:
    """The type of the weights: float32 if they train; under LoRA they are frozen."""
    return torch.bfloat16 if recipe.lora_r and recipe.precision == "bf16" else torch.float32


def with_adapters(model: Any, recipe: Recipe) -> Any:
    """The model, with LoRA adapters on the linear layers of its language model if the recipe has adapters. A model that
    has its adapter stays as it is.
    """
    if not recipe.lora_r:
        return model
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        return model
    decoder = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    linear = {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    set_seed(recipe.seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=recipe.lora_r,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules=rf"{re.escape(prefix)}\..*\.({'|'.join(sorted(linear))})",
        ),
    )


def reference_folder_of(inputs: Inputs, recipe: Recipe, cache: Path | None) -> Path:
    """The folder of the log-probs of the recipe's rows under the inputs' checkpoint. See `train` for `cache`."""
    conversation, rows = inputs.conversation, inputs.rows
    return reference_folder(
        caches.training_place(cache, "reference"),
        ckpt=inputs.checkpoint.fingerprint(),
        data=rows.fingerprint,
        responses=rows.responses,
        crop_seed=recipe.crop_seed,
        prompt=conversation.determinants,
        strip_responses=recipe.strip_responses,
        max_length=recipe.max_length,
        batch_size=recipe.per_device_batch_size,
        shared_prefix=recipe.shared_prefix,
        precision=recipe.precision,
        lora=recipe.lora_r > 0,
        **({"images": rows.images.determinants} if rows.images is not None else {}),
    )


def store_reference(model: Any, inputs: Inputs, recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Compute the missing log-probs of the recipe's rows in `folder`, each process its share, and wait for all
    processes.

    Args:
        model: Model of the inputs' checkpoint, on its device.
        inputs: Rows and conversation.
        recipe: Recipe that determines the log-probs.
        folder: Folder of `reference_folder_of`.
        progress: Progress of the pass.
    """
    missing = rows_missing(len(inputs.rows), folder)
    if processes.is_first():
        caches.mark(folder, of=f"{recipe.base} on {recipe.data}")
    processes.wait()
    done = 0

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        progress("Reference", min(done * processes.count(), missing), missing)

    compute_reference(
        model,
        inputs.rows,
        Examiner(Collator(inputs.conversation, recipe.crop_seed), recipe.max_length),
        folder,
        batch_size=recipe.per_device_batch_size,
        shared_prefix=recipe.shared_prefix,
        bf16=recipe.precision == "bf16",
        rank=processes.rank(),
        processes=processes.count(),
        workers=recipe.workers,
        on_rows=on_rows,
    )
    processes.wait()


def _tensorboard(out: Path, last: Path | None) -> list[TrainerCallback]:
    """A writer into `out/tensorboard`. Steps that are run again replace the old steps."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / TENSORBOARD), purge_step=output.step_of(last) + 1)
    return [TensorBoardCallback(writer)]  # type: ignore[no-untyped-call]


def _save(trainer: PreferenceTrainer, out: Path) -> None:
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(out))
    (out / "training_args.bin").unlink(missing_ok=True)
