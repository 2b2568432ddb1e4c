"""The recipe of a training run, checked, with every default in one place."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError, nearest, unknown_name
from napo_bench.core.names import Control
from napo_bench.models.conversation import ImageShape
from napo_bench.trainers.losses import LOSSES
from napo_bench.trainers.negatives import NEGATIVES, REJECTED, Negative

RECIPES = Path(__file__).parent / "recipes"
NO_LOSS = "none"

LogProb = Literal["sum", "mean"]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Term:
    """A term of the objective: the values of a recipe for one kind of negative.

    Attributes:
        negative: Kind of negative.
        loss: Name of the loss in `LOSSES`.
        q_from: Whether q looks at margins of summed or of mean log-probs.
        alpha: Sensitivity of q (Eq. 12).
        weight: Weight of the term if the recipe's weights are `fixed`.
    """

    negative: Negative
    loss: str
    q_from: LogProb
    alpha: float
    weight: float


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the trained weights, except the rows and the number of processes.

    The defaults are the paper's NaPO on LLaVA-1.5-7B.

    Attributes:
        base: Checkpoint to start from: a hub name or a folder.
        data: Preference rows: a hub name, a parquet file or a folder of parquet files.
        conversation: Conversation of LLaVA-1.5: `llava_v1` (the paper's), `vicuna_v1` (that of LLaVA's evaluation), or
            `auto`: the one that the base was saved with, else `llava_v1`. The trained checkpoint is evaluated in it.
        loss_rejected: Loss of the pairs (chosen, rejected): a name in `LOSSES`, or `none`. `mdpo` compares images too,
            and has an anchor.
        loss_language: Loss of the pairs (chosen, language-biased).
        loss_vision: Loss of the pairs (chosen, vision-biased).
        beta: Beta of every loss.
        label_smoothing: Share of wrong labels that cDPO and rDPO assume.
        q_rejected_from: Whether NaPO's q looks at summed or mean log-probs of the pairs (chosen, rejected).
        q_language_from: The same for the language-biased negatives.
        q_vision_from: The same for the vision-biased negatives.
        alpha_rejected: Sensitivity of q (Eq. 12) for the pairs (chosen, rejected).
        alpha_language: The same for the language-biased negatives.
        alpha_vision: The same for the vision-biased negatives.
        weights: Rule for the weights of the losses: `dynamic` (Eq. 13), `bounded` (not in the paper), `sum`, `fixed`,
            or `random` (one loss a step, drawn).
        gamma_threshold: Dynamic weights are equal until the sum of the mean margins is this many times as far from 0
            as rounding alone takes it. The run measures the rounding in its first step. 0 follows Eq. 13 from there on.
        noise_rows: Number of rows over which the means for q and for the weights are taken, whatever the number of
            processes; 0 takes the rows of one forward of all processes.
        fixed_weights: Weights of rejected, language and vision if `weights` is `fixed`.
        learning_rate: Highest learning rate.
        epochs: Number of passes over the rows, which may be a fraction.
        schedule: Schedule of the learning rate, by transformers' name.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Norm to which gradients are clipped; 0 clips no gradient.
        per_device_batch_size: Number of rows in one forward of one process.
        gradient_accumulation: Number of forwards before the weights change.
        precision: `bf16` keeps the trained weights in float32 and computes in bfloat16.
        gradient_checkpointing: Whether to recompute activations in the backward.
        shuffle: Whether the order of the rows is drawn `once`, or anew for `each_epoch`.
        training_image: What LLaVA-1.5 sees of an image that is not square: its centre (`crop`, as in the paper's
            training), or the whole image in a square (`pad`, as in evaluation). Other models keep their treatment.
        control: What replaces the images of the rows, to measure what is gained without looking: `blind` (a blank image
            of the same size) or `swapped` (the image of another row); None trains on the rows' own images.
        strip_responses: Whether blanks at the ends of responses are removed.
        max_length: Maximum number of tokens of image, prompt and one response; longer rows are left out and reported.
        shared_prefix: Whether to compute image and prompt once for all responses of a row.
        train_vision_tower: Whether to train the vision tower too.
        lora_r: Rank of LoRA adapters on the language model's linear layers; 0 trains all weights.
        lora_alpha: Scale of the adapters.
        lora_dropout: Dropout before the adapters.
        seed: Seed of the order of the rows, of dropout, of mDPO's crops, of the draws of `random` weights and of the
            images of the control `swapped`.
        logging_steps: Steps between two lines of the log.
        save_steps: Steps between two checkpoints to resume from.
        workers: Number of processes that decode images for each training process.
        report_to: `tensorboard`, `wandb`, both or none; the JSONL log is always written.
    """

    base: str = "llava-hf/llava-1.5-7b-hf"
    data: str = "Starrrrrry/RLAIF-V-Bias-Dataset"
    conversation: Literal["auto", "llava_v1", "vicuna_v1"] = "auto"
    loss_rejected: str = "dpo"
    loss_language: str = "napo"
    loss_vision: str = "napo"
    beta: Positive = 0.1
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 0.1
    q_rejected_from: LogProb = "sum"
    q_language_from: LogProb = "mean"
    q_vision_from: LogProb = "sum"
    alpha_rejected: Positive = 0.01
    alpha_language: Positive = 0.5
    alpha_vision: Positive = 0.01
    weights: Literal["dynamic", "bounded", "sum", "fixed", "random"] = "dynamic"
    gamma_threshold: NotNegative = 3.0
    noise_rows: Annotated[int, msgspec.Meta(ge=0)] = 8
    fixed_weights: tuple[NotNegative, NotNegative, NotNegative] = (0.04, 0.48, 0.48)
    learning_rate: Positive = 5e-7
    epochs: Positive = 4.0
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Fraction = 0.1
    weight_decay: NotNegative = 0.01
    max_grad_norm: NotNegative = 0.0
    per_device_batch_size: Count = 1
    gradient_accumulation: Count = 4
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = True
    shuffle: Literal["once", "each_epoch"] = "once"
    training_image: ImageShape = "crop"
    control: Control | None = None
    strip_responses: bool = False
    max_length: Count = 2048
    shared_prefix: bool = True
    train_vision_tower: bool = False
    lora_r: Annotated[int, msgspec.Meta(ge=0)] = 0
    lora_alpha: Positive = 256
    lora_dropout: Fraction = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 42
    logging_steps: Count = 10
    save_steps: Count = 500
    workers: Annotated[int, msgspec.Meta(ge=0)] = 4
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the objective: one for each negative that has a loss, in the order of `NEGATIVES`."""
        return tuple(
            Term(negative, loss, getattr(self, f"q_{name}_from"), getattr(self, f"alpha_{name}"), weight)
            for (name, negative), weight in zip(NEGATIVES.items(), self.fixed_weights, strict=True)
            if (loss := getattr(self, _loss_key(name))) != NO_LOSS
        )

    @property
    def negatives(self) -> tuple[str, ...]:
        """The names of the negatives that have a loss, in the order of `NEGATIVES`."""
        return tuple(term.negative.name for term in self.terms)

    @property
    def takes_means(self) -> bool:
        """Whether q or the weights are computed from means over rows."""
        return self.compares_shares or any("q" in LOSSES[term.loss].needs for term in self.terms)

    @property
    def compares_shares(self) -> bool:
        """Whether the weights of several losses depend on their mean margins."""
        return self.weights in ("dynamic", "bounded") and len(self.terms) > 1

    @property
    def crop_seed(self) -> int | None:
        """Seed of the crops that a loss on images (mDPO) compares with; None if the recipe has no such loss."""
        return self.seed if any(_compares_images(term.loss) for term in self.terms) else None

    def with_loss(self, loss: str, negatives: Collection[str]) -> Recipe:
        """The same recipe with one loss for these negatives, and without a loss for the others."""
        losses: dict[str, Any] = {_loss_key(name): loss if name in negatives else NO_LOSS for name in NEGATIVES}
        return replace(self, **losses)

    def to_yaml(self) -> str:
        """The recipe with every field, as a YAML file that `load_recipe` reads."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)


def loss_names(negative: str) -> list[str]:
    """The names that a recipe's loss of a negative can have; a loss that compares images takes the original pairs."""
    return [name for name in LOSSES if negative == REJECTED.name or not _compares_images(name)] + [NO_LOSS]


def recipe_names() -> list[str]:
    """The names of the package's recipes, each base with each variant; an adapter may follow: `micro-napo-lora`."""
    return [name for name, (_, _, adapter) in _recipes().items() if not adapter]


def load_recipe(source: str | Path, overrides: Sequence[str] = (), variant: str | None = None) -> Recipe:
    """Read a recipe.

    Args:
        source: The name of a recipe of the package, such as `micro-napo`, or a YAML file. A file can extend another
            recipe with `extends: NAME_OR_FILE`, and then states only the keys that differ.
        overrides: "key=value", applied last; values are YAML.
        variant: The end of the name of a variant or adapter: `lb1` makes `micro-napo` into `micro-napo-lb1`. The
            changes of a file are applied on top of the variant of the recipe that the file extends.

    Raises:
        NapoBenchError: there is no such recipe, a key is unknown (the error names the nearest key), a value has the
            wrong type or is out of range, or the recipe has no loss.
    """
    if variant is not None and not variant.strip():
        raise NapoBenchError("--variant is empty.", f"Choose one of {', '.join(_names('variants'))}, or leave it out.")
    values = _read(str(source), variant, ())
    where = f"{source} with --variant {variant}" if variant else str(source)
    values |= map(_override, overrides)
    if overrides:
        where += f" with --set {' --set '.join(overrides)}"
    return recipe_of(values, where)


def refuse_overruled(overrides: Sequence[str], set_by: Mapping[str, tuple[str, str | None]]) -> None:
    """Refuse an override that would have no effect, because the command sets the key to another value.

    Args:
        overrides: See `load_recipe`.
        set_by: Key -> what sets it, such as an option, and the value; None if the value of the recipe stays.

    Raises:
        NapoBenchError: an override has no effect, or is not "key=value" of a recipe.
    """
    for key, value in dict(map(_override, overrides)).items():
        source, other = set_by.get(key, ("", None))
        if other is not None and str(value) != other:
            raise NapoBenchError(
                f"--set {key}={value} has no effect: {source} sets {key} to {other}.",
                f"Leave out --set {key}, or give the same value.",
            )


def _override(text: str) -> tuple[str, Any]:
    """The key and the value of "key=value"."""
    key, equals, value = text.partition("=")
    if not equals:
        raise NapoBenchError(f"--set {text}: key=value is expected.", "For example --set beta=0.2")
    _check_key(key.strip(), f"--set {text}")
    try:
        return key.strip(), _load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise NapoBenchError(f"--set {text}: the value is not valid YAML.") from None


def recipe_of(values: Mapping[str, Any], where: str) -> Recipe:
    """The recipe of these values.

    Args:
        values: Key -> value; a missing key has its default.
        where: File or name of the values, for messages.

    Raises:
        NapoBenchError: a value has the wrong type or is out of range, or the recipe has no loss.
    """
    try:
        recipe = msgspec.convert(values, Recipe, strict=False)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`").split("[")[0]
        hint = _choices(name, values.get(name))
        raise NapoBenchError(f"{where}: {name} is {values.get(name)!r}. {reason}.", hint) from None
    for term in recipe.terms:
        if term.loss not in loss_names(term.negative.name):
            name = _loss_key(term.negative.name)
            raise NapoBenchError(f"{where}: {name} is {term.loss!r}, which is no loss.", _choices(name, term.loss))
    if not recipe.terms:
        hint = f"Set {_loss_key(REJECTED.name)}: dpo"
        raise NapoBenchError(f"{where}: every loss is none, so there is nothing to train on.", hint)
    if recipe.weights == "fixed" and not any(recipe.fixed_weights):
        raise NapoBenchError(f"{where}: fixed_weights are all 0, so there is nothing to train on.")
    return recipe


def _read(source: str, variant: str | None, seen: tuple[Path, ...]) -> dict[str, Any]:
    if Path(source).suffix not in (".yaml", ".yml"):
        return _named(f"{source}-{variant}" if variant else source)
    beside = seen[-1].parent if seen else Path()
    path = files.require_file((beside / Path(source).expanduser()).resolve())
    if path in seen:
        raise NapoBenchError(f"{path}: extends goes round in a circle: {' -> '.join(p.stem for p in (*seen, path))}.")
    values = _yaml(path)
    parent = values.pop("extends", None)
    for key in values:
        _check_key(str(key), str(path))
    if parent is not None:
        return {**_read(str(parent), variant, (*seen, path)), **values}
    if variant:
        raise NapoBenchError(
            f"{path} extends no recipe of the package, so the file has no variant {variant}.",
            "Add a line such as `extends: micro-napo` to the file, or leave out --variant.",
        )
    return values


def _named(name: str) -> dict[str, Any]:
    """The values of a recipe of the package: those of the base, then of the variant, then of the adapter."""
    recipes = _recipes()
    if name not in recipes:
        near = nearest(name, recipes)
        raise NapoBenchError(
            f"There is no recipe {name!r}.",
            f"Did you mean {' or '.join(near)}?"
            if near
            else f"Choose one of the bases {', '.join(_names('bases'))}, and one of the variants "
            f"{', '.join(_names('variants'))}, joined by a hyphen. The name of a recipe's file ends in .yaml.",
        )
    base, variant, adapter = recipes[name]
    values: dict[str, Any] = {}
    for _, stated in _lineage("bases", base):
        values |= stated
    of_variants, scale = values.pop("variants", {}), values.pop("scale_of_sums", 1)
    for link, stated in _lineage("variants", variant):
        values |= stated | of_variants.get(link, {})
    if adapter:
        values |= _yaml(RECIPES / "adapters" / f"{adapter}.yaml")
    return values if scale == 1 else _scaled(values, scale)


def _scaled(values: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """The values with beta, and each alpha of a q that looks at sums, times a factor."""
    full = {**asdict(Recipe()), **values}
    sums = [f"alpha_{name}" for name in NEGATIVES if full[f"q_{name}_from"] == "sum"]
    return {**values, **{key: full[key] * scale for key in ("beta", *sums)}}


def _lineage(kind: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """A base or variant and the files that it extends, the oldest first: names, and the values of each file."""
    values = _yaml(RECIPES / kind / f"{name}.yaml")
    parent = values.pop("extends", None)
    return [*(_lineage(kind, parent) if parent else []), (name, values)]


def _recipes() -> dict[str, tuple[str, str, str]]:
    """Name of a recipe of the package -> base, variant and adapter; "" without an adapter."""
    parts = itertools.product(_names("bases"), _names("variants"), ["", *_names("adapters")])
    return {"-".join(filter(None, part)): part for part in parts}


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in (RECIPES / kind).glob("*.yaml"))


def _load(text: str) -> Any:
    """The value of a YAML text. Raises ValueError if the text has an alias."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """YAML without aliases, a few of which can stand for any number of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("a recipe has no aliases (*name)")
        return super().compose_node(parent, index)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        values = _load(files.read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NapoBenchError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise NapoBenchError(f"{path}: lines of the form `key: value` are expected.")
    return values


def _loss_key(negative: str) -> str:
    return f"loss_{negative}"


def _compares_images(loss: str) -> bool:
    return loss in LOSSES and "image_margin" in LOSSES[loss].needs


def _choices(key: str, value: object) -> str:
    """The values that a key may have, if they are few, and the values that are nearest to the given value."""
    kind = get_type_hints(Recipe).get(key)
    kind = next((part for part in get_args(kind) if get_origin(part) is Literal), kind)
    by_loss = {_loss_key(name): loss_names(name) for name in NEGATIVES}
    choices = by_loss.get(key) or (list(get_args(kind)) if get_origin(kind) is Literal else [])
    if not choices:
        return ""
    near = nearest(str(value), choices)
    return (f"Did you mean {' or '.join(near)}? " if near else "") + f"{key} is one of: {', '.join(choices)}."


def _check_key(key: str, where: str) -> None:
    names = [field.name for field in fields(Recipe)]
    if key not in names:
        raise unknown_name("key", key, names, where)
