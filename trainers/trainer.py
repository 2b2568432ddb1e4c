"""PreferenceTrainer: transformers' Trainer with the objective of this project.

What "the whole batch" is: q and the dynamic weights are computed from means over the rows of a group (`means.py`):
`noise_rows` rows of the step, whatever forwards and processes they are in. Every row of the accumulated batch counts
the same in the loss: each negative's losses are divided by the number of rows with the negative, over all forwards and
processes. No gradient flows through q and the weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from napo_bench.core import files, interrupts, processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import Progress
from napo_bench.trainers import output
from napo_bench.trainers.batches import Collator, EpochBatches, EpochLoader, TrainingBatch
from napo_bench.trainers.forward.logps import ResponseLogps
from napo_bench.trainers.log import Averages, logged_values, peak_memory
from napo_bench.trainers.means import Groups, Means, Rounding, groups_of_step, within_rounding
from napo_bench.trainers.objective import LogRatios, loss_weights, losses, noise_robustnesses
from napo_bench.trainers.recipe import Recipe
from napo_bench.trainers.reference import row_logps
from napo_bench.trainers.rows import PreferenceRow, PreferenceRows

SignalSeen = Callable[[], int]
"""Returns the number of the signal that asks for the end of the training, or 0."""


class PreferenceTrainer(Trainer):
    """Trains on a `TrainingBatch` a step, with the losses, q and weights of a recipe.

    Args:
        model: Model with a frozen vision tower, and with its adapters if it has adapters.
        recipe: Recipe with the objective.
        rows: Rows to train on.
        collator: Collator with the stored reference log-probs.
        args: Arguments from `napo_bench.trainers.run`.
        processor: Processor, which is saved with every checkpoint.
        log_path: File that gets one JSON line a logging step, from the first process.
        progress: Progress of the stage "Training": the step, the number of steps and the last logged values.
        signal_seen: Function that says whether this process has seen a signal. A signal in any process ends the
            training of all processes after the same step, with a checkpoint of that step.
        callbacks: Further callbacks.

    Attributes:
        ended_by: Number of the signal that ended the training early; 0 without a signal.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        rows: PreferenceRows,
        collator: Collator,
        args: TrainingArguments,
        processor: Any,
        log_path: Path,
        progress: Progress,
        signal_seen: SignalSeen = lambda: 0,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(
            model,
            args,
            data_collator=partial(_model_inputs, collator),
            train_dataset=rows,
            processing_class=processor,
            callbacks=[_StepsTold(progress), _EndBySignal(self), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # compute_loss already divides by the rows of the whole accumulated batch
        if self.is_fsdp_enabled:  # not all of the classes that accelerate would use are in the model
            plugin, layers = self.accelerator.state.fsdp_plugin, model.get_decoder().layers
            plugin.transformer_cls_names_to_wrap = plugin.transformer_cls_names_to_wrap or [type(layers[0]).__name__]
        self.recipe = recipe
        self.rows = rows
        self.log_path = log_path
        self.ended_by = 0
        self._signal_seen = signal_seen
        self._averages = Averages()
        self._loss_sum, self._last_log = torch.zeros((), device=args.device), 0
        self._before_step = (self._averages, self._loss_sum)
        self._ids_of_step: list[str] = []
        self._rounding: Rounding | None = None
        self._tokens, self._since = 0, time.monotonic()

    def get_train_dataloader(self) -> DataLoader[PreferenceRow]:
        """The rows of this process, `per_device_batch_size` at a time."""
        args = self.args
        batches = EpochBatches(
            len(self.rows),
            args.train_batch_size,
            processes.rank(),
            processes.count(),
            args.seed,
            each_epoch=self.recipe.shuffle == "each_epoch",
        )
        return EpochLoader(
            self.rows,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            worker_init_fn=interrupts.leave_signals_to_parent,
            persistent_workers=args.dataloader_num_workers > 0,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The forwards of one step with their groups, and the number of their rows with each negative over all
        processes, `[N]`.
        """
        self._before_step = (self._averages.copy(), self._loss_sum)
        forwards, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        recipe, batches = self.recipe, [inputs["batch"] for inputs in forwards]
        self._ids_of_step = [row_id for batch in batches for row_id in batch.ids]
        counted = [torch.cat([batch.present, batch.present.amax(1, keepdim=True)], 1).sum(0) for batch in batches]
        rows = self.accelerator.reduce(torch.stack(counted).to(device), "sum")
        groups = groups_of_step(
            rows[:, -1].int().tolist(),
            [len(batch.ids) for batch in batches],
            recipe.noise_rows if recipe.takes_means else 0,
            processes.rank(),
            processes.count(),
        )
        if self._rounding is None and recipe.weights == "dynamic" and recipe.compares_shares and recipe.gamma_threshold:
            self._rounding = self._measure_rounding(batches)
        # q and the weights of the first forward depend on rows of later forwards.
        ahead = any(of_forward.continued for of_forward in groups)
        means = self._means(batches, groups, [self._ahead(batch) for batch in batches]) if ahead else None
        for inputs, of_forward in zip(forwards, groups, strict=True):
            inputs["groups"] = of_forward
            inputs["means"] = means.of_groups(of_forward) if means else None
        return forwards, rows[:, :-1].sum(0)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The weighted losses of this process's rows, scaled so that the mean over processes is the batch's loss."""
        recipe, prompts, groups = self.recipe, inputs["batch"].prompts, inputs["groups"]
        self._tokens += int(prompts.attention_mask.sum() + prompts.response_mask.sum())
        batch = inputs["batch"].to(self.args.device)
        logps, ratios = self._log_ratios(model, batch)
        means = inputs["means"] if inputs["means"] is not None else self._means([batch], [groups], [ratios])
        q = noise_robustnesses(recipe, means)
        weights = loss_weights(recipe, means, self._rounding, self.state.global_step, num_items_in_batch)
        of_rows = groups.of_rows.to(batch.present.device)
        by_row = losses(recipe, ratios, {name: of_groups[of_rows] for name, of_groups in q.items()})
        total = (groups.sums(by_row * batch.present) * weights / num_items_in_batch.clamp(min=1)).sum()
        begun = groups.begun.to(batch.present.device)
        for logged in logged_values(
            recipe, batch.present, logps.sum, ratios, means, begun, self._rounding, by_row, q, weights
        ):
            self._averages.add(*logged)
        loss: Tensor = total * processes.count()
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward. The loss is added to the averages of the next log line."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self._loss_sum = self._loss_sum + loss
        return loss

    def agree_to_end(self) -> bool:
        """Whether any process has seen a signal. Every process asks after each step, and gets the same answer."""
        seen = torch.tensor([self._signal_seen()], device=self.args.device)
        self.ended_by = int(self.accelerator.gather(seen).max())
        return self.ended_by > 0

    def _log_ratios(self, model: nn.Module, batch: TrainingBatch) -> tuple[ResponseLogps, LogRatios]:
        """Log-probs of the policy, `[B, K]`, and their log-ratios."""
        logps = row_logps(model, batch, self.recipe.shared_prefix)
        sums, means = logps.sum - batch.reference_sum, logps.mean - batch.reference_mean
        return logps, LogRatios.of(sums, means, len(self.recipe.negatives))

    def _means(self, batches: Sequence[TrainingBatch], groups: Sequence[Groups], ratios: Sequence[LogRatios]) -> Means:
        """Means over the rows of each group on all processes, from these forwards of this process."""
        first, end, device = groups[0].first, groups[-1].first + groups[-1].count, self.args.device
        totals = torch.zeros(end - first, 3, len(self.recipe.negatives), device=device)
        bad: list[str] = []
        with torch.no_grad():
            for batch, of_forward, of_batch in zip(batches, groups, ratios, strict=True):
                bad += [row_id for row_id, fine in zip(batch.ids, of_batch.finite.tolist(), strict=True) if not fine]
                present = batch.present.to(device)
                by_row = torch.stack([of_batch.margins * present, of_batch.mean_margins * present, present], 1)
                totals[of_forward.first - first :][: of_forward.count] += of_forward.sums(by_row)
            sums = self.accelerator.reduce(torch.cat([totals.flatten(), totals.new_tensor([len(bad)])]), "sum")
        if not torch.isfinite(sums).all() or sums[-1]:
            self._stop("The loss", bad)
        return Means.of(sums[:-1].view_as(totals))

    def _measure_rounding(self, batches: Sequence[TrainingBatch]) -> Rounding | None:
        """The rounding of the margins in these rows of all processes; None if a margin is not finite."""
        precision = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        terms = torch.zeros(3, len(self.recipe.negatives), device=self.args.device)
        for batch in batches:
            changed = self._ahead(within_rounding(batch, precision, self.recipe.seed))
            moved = changed.margins - self._ahead(batch).margins
            terms += Rounding.terms(moved, batch.present.to(moved))
        terms = self.accelerator.reduce(terms, "sum")
        return Rounding(*terms) if torch.isfinite(terms).all() else None

    def _ahead(self, batch: TrainingBatch) -> LogRatios:
        """The log-ratios of a batch, without gradients. The forward after this one draws the same dropout."""
        device = self.args.device
        self.model_wrapped.train()
        with (
            torch.no_grad(),
            self.compute_loss_context_manager(),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
        ):
            return self._log_ratios(self.model_wrapped, batch.to(device))[1]

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)).all():
            self._stop("The gradient", [])
        return norm

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights of a checkpoint of this run.

        The Trainer uses the names in the file unchanged, and so skips every weight that `save_pretrained` writes under
        an older name, which are all weights for LLaVA. `from_pretrained` knows both names.
        """
        if self.recipe.lora_r or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        own: Any = self.model
        saved = type(own).from_pretrained(resume_from_checkpoint, dtype=own.dtype, use_safetensors=True)
        own.load_state_dict(saved.state_dict())

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, with this process's sums since the last log line and the measured rounding."""
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        unlogged = {
            "averages": self._averages.sums(),
            "loss": self._loss_sum.item(),
            "last_log": self._last_log,
            "rounding": self._rounding.sums() if self._rounding else None,
        }
        files.write_json(folder / self._unlogged_name, unlogged)
        super()._save_checkpoint(*args, **kwargs)

    def go_on_from(self, checkpoint: Path) -> None:
        """Load the sums since the last log line, and the rounding, so that the run continues as if uninterrupted."""
        unlogged, device = files.read_json(checkpoint / self._unlogged_name), self.args.device
        self._averages = Averages(unlogged["averages"], device)
        self._loss_sum, self._last_log = torch.tensor(unlogged["loss"], device=device), unlogged["last_log"]
        self._rounding = Rounding(*torch.tensor(unlogged["rounding"], device=device)) if unlogged["rounding"] else None

    @property
    def _unlogged_name(self) -> str:
        return output.UNLOGGED.format(rank=processes.rank())

    def _stop(self, what: str, bad: list[str]) -> NoReturn:
        """Save the weights before this step and end the run. The error names the rows. Every process calls this
        method.
        """
        step = self.state.global_step
        ids, bad = gather_object(self._ids_of_step), gather_object(bad)
        self._averages, self._loss_sum = self._before_step
        self._save_checkpoint(self.model_wrapped, trial=None)
        culprits = f" Not finite are the log-probs of: {_some(bad)}." if bad else ""
        raise NapoBenchError(
            f"{what} of step {step + 1} is NaN or infinite. The rows of its batch: {_some(ids)}.{culprits}",
            f"The weights before that step are in {self.args.output_dir}/checkpoint-{step}. Look at these rows; the "
            "same command with --resume tries the step again. If it fails again, take the rows out of the data, or "
            "lower the learning rate, and start a new run.",
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the averages since the last line, over all processes, and write the line to the JSONL as well."""
        if "loss" in logs:
            logs["loss"] = self._mean_loss()
            logs |= self._drain()
        super().log(logs, start_time)
        if "loss" in logs and processes.is_first():
            with self.log_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": self.state.global_step, **logs}) + "\n")

    def _mean_loss(self) -> float:
        """The mean over processes and over the steps since the last line, including steps before an interruption."""
        loss = self.accelerator.gather(self._loss_sum).mean().item() / (self.state.global_step - self._last_log)
        self._loss_sum, self._last_log = torch.zeros_like(self._loss_sum), self.state.global_step
        return float(loss)

    def _drain(self) -> dict[str, float]:
        means = self._averages.means(partial(self.accelerator.reduce, reduction="sum"))
        now = time.monotonic()
        speed = self._tokens / (now - self._since)
        mine = torch.tensor([speed, peak_memory(self.args.device)], device=self.args.device)
        speeds, peaks = self.accelerator.gather(mine).view(-1, 2).unbind(1)
        self._averages, self._tokens, self._since = Averages(), 0, now
        return {**means, "tokens_per_second": speeds.sum().item(), "memory/peak_gb": peaks.max().item()}

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations are not counted, because the Trainer's estimate does not know the shared prefix."""
        return 0


class _StepsTold(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.logged: dict[str, float] = {}

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if "loss" in logs:
            self.logged = logs
            self.progress("Training", state.global_step, state.max_steps, logs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_log |= state.global_step == state.max_steps
        self.progress("Training", state.global_step, state.max_steps, self.logged)


class _EndBySignal(TrainerCallback):
    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer.agree_to_end():
            control.should_save = control.should_training_stop = True


def _model_inputs(collator: Collator, rows: Sequence[PreferenceRow]) -> dict[str, TrainingBatch]:
    """The batch in the dict that the Trainer passes."""
    return {"batch": collator(rows)}


def _some(ids: list[str], shown: int = 32) -> str:
    return ", ".join(ids[:shown]) + (f" and {len(ids) - shown} more" if len(ids) > shown else "")
