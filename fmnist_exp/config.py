"""The schema of an experiment: typed, frozen, every field with its unit and range.

This is the one place where a default is written down. Files and overrides are read in experiment_files.py.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

Width = Annotated[int, Field(ge=1, le=4096)]
Convolutions = Annotated[int, Field(ge=1, le=4)]
Dropout = Annotated[float, Field(ge=0, le=0.95)]


class Section(BaseModel):
    """Base of every part of an experiment: immutable, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Where the images come from, and how they are divided."""

    source: str | None = Field(None, description="folder with the IDX or CSV files; empty: find the data")
    validation_fraction: float = Field(0.1, ge=0.01, le=0.5, description="part of the 60,000 kept for validation")


class AugmentationConfig(Section):
    """What happens to training images on the fly. All off by default."""

    horizontal_flip: bool = Field(False, description="mirror every second image, left to right")
    shift: int = Field(0, ge=0, le=8, description="largest shift in either direction, pixels")
    erasing: float = Field(0.0, ge=0, le=1, description="probability that a random rectangle is erased")


class ModelConfig(Section):
    """The network. A family ignores the fields that it has no use for."""

    family: str = Field("cnn", description="a name in the registry MODELS")
    widths: tuple[Width, ...] = Field((32, 64), max_length=8, description="units per layer or filters per block")
    dropout: Dropout | tuple[Dropout, ...] = Field(0.0, description="fraction dropped after each layer or block")
    l2: float = Field(0.0, ge=0, le=1, description="L2 penalty on the kernels")
    batch_norm: bool = Field(False, description="normalise before the activation")
    activation: Literal["relu", "silu"] = Field("relu", description="activation function")
    convolutions: Convolutions | tuple[Convolutions, ...] = Field(
        2, description="per block, one number or a list (cnn)"
    )
    residual: bool = Field(False, description="add the input of a block's later convolutions to their output (cnn)")
    pool_first: bool = Field(False, description="halve the maps after a block's first convolution, not its last (cnn)")
    kernel_size: int = Field(3, ge=1, le=7, description="side of a convolution kernel, pixels (cnn)")
    stem_stride: int = Field(1, ge=1, le=2, description="stride of the first convolution, pixels (cnn)")
    pooling: Literal["flatten", "average"] = Field("flatten", description="from feature maps to a vector (cnn)")
    head_widths: tuple[Width, ...] = Field((), max_length=4, description="units per dense layer after the blocks (cnn)")
    head_dropout: float = Field(0.0, ge=0, le=0.95, description="fraction dropped before the output (cnn)")

    @model_validator(mode="after")
    def _one_value_per_width(self) -> "ModelConfig":
        for name in ("dropout", "convolutions"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.widths):
                raise ValueError(f"model.{name} lists {len(value)} values for {len(self.widths)} model.widths")
        return self

    def dropouts(self) -> tuple[float, ...]:
        """The dropout of each layer or block, one per width."""
        return self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * len(self.widths)

    def convolutions_per_block(self) -> tuple[int, ...]:
        """The convolutions of each block, one number per width."""
        return self.convolutions if isinstance(self.convolutions, tuple) else (self.convolutions,) * len(self.widths)


class TrainingConfig(Section):
    """How the network is fitted."""

    epochs: int = Field(10, ge=1, le=1000, description="passes over the training images, at most")
    batch_size: int = Field(128, ge=1, le=60_000, description="images per step")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="sgd has Nesterov momentum")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the peak, where the schedule has one")
    momentum: float = Field(0.9, ge=0, le=0.999, description="sgd only")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decoupled; adamw and sgd only")
    schedule: Literal["constant", "one_cycle", "plateau"] = Field("constant", description="of the learning rate")
    warmup: float = Field(0.25, ge=0, le=0.9, description="part of the steps that one_cycle climbs")
    plateau_patience: int = Field(2, ge=1, le=100, description="epochs without progress before plateau cuts the rate")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="what plateau multiplies the learning rate by")
    label_smoothing: float = Field(0.0, ge=0, le=0.5, description="needs one_hot labels")
    labels: Literal["integer", "one_hot"] = Field("integer", description="sparse or categorical cross-entropy")
    monitor: Literal["val_loss", "val_accuracy"] = Field("val_accuracy", description="what makes an epoch the best")
    patience: int | None = Field(
        None, ge=1, le=1000, description="epochs without progress before stopping; empty: never"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of activations; weights stay float32")
    steps_per_execution: int = Field(10, ge=1, le=1000, description="steps per call into the compiled graph")

    @model_validator(mode="after")
    def _smoothing_needs_one_hot(self) -> "TrainingConfig":
        if self.label_smoothing and self.labels != "one_hot":
            raise ValueError("training.label_smoothing needs training.labels=one_hot")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("training.weight_decay needs training.optimizer=adamw or sgd")
        return self


class Range(Section):
    """Numbers from `low` to `high`; whole ones where the field is whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _not_empty(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step")
        steps = (self.high - self.low) / (self.step or 1)
        if self.step is not None and not math.isclose(steps, round(steps), abs_tol=1e-6):
            raise ValueError(f"step ({self.step:g}) must divide the way from low to high")
        return self


class Choice(Section):
    """One of the values listed."""

    choices: tuple[Any, ...] = Field(min_length=2)


class Layers(Section):
    """A list of widths: `depth` layers at least and at most, each `low` to `high` units or filters wide.

    `low` and `high` are one number for all layers or a list with one for each.
    """

    depth: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]]
    low: Width | tuple[Width, ...]
    high: Width | tuple[Width, ...]
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _not_empty(self) -> "Layers":
        if self.depth[0] > self.depth[1]:
            raise ValueError(f"the first depth ({self.depth[0]}) must not be above the second ({self.depth[1]})")
        for limit in (self.low, self.high):
            if isinstance(limit, tuple) and len(limit) != self.depth[1]:
                raise ValueError(f"low and high list one width for each of {self.depth[1]} layers, not {len(limit)}")
        for low, high in self.limits():
            if low >= high:
                raise ValueError(f"low ({low}) must be below high ({high})")
            if (high - low) % self.step:
                raise ValueError(f"step ({self.step}) must divide the way from {low} to {high}")
        return self

    def limits(self) -> list[tuple[int, int]]:
        """The lowest and the highest width of each layer, for the greatest depth."""
        lows, highs = (
            limit if isinstance(limit, tuple) else (limit,) * self.depth[1] for limit in (self.low, self.high)
        )
        return list(zip(lows, highs, strict=True))


class SearchConfig(Section):
    """What a search varies, and what it may cost."""

    space: dict[str, Layers | Range | Choice] = Field(
        min_length=1, description="field: {low, high, log | choices | depth}"
    )
    n_trials: int = Field(20, ge=1, le=100_000, description="finished trials, those of earlier sessions included")
    timeout: float = Field(60.0, gt=0, le=100_000, description="minutes after which no trial goes on")
    reduction_factor: int = Field(
        3, ge=2, le=10, description="successive halving keeps one trial in so many at each rung"
    )
    min_epochs: int = Field(1, ge=1, le=1000, description="epochs before the first rung")
    startup_trials: int = Field(5, ge=1, le=1000, description="random trials before TPE")


class GateConfig(Section):
    """What a challenger must show to become champion."""

    level: float = Field(0.05, gt=0, le=0.5, description="of the one-sided McNemar test against the champion")
    min_images: int = Field(500, ge=1, le=60_000, description="validation images that neither model was trained on")


class ExperimentConfig(Section):
    """One experiment: everything that decides its numbers."""

    name: str = Field("experiment", min_length=1, description="of the experiment; its file's name")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of the split, the weights, the order and the search")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    search: SearchConfig | None = None
    gate: GateConfig = GateConfig()

    def to_yaml(self) -> str:
        """The experiment as a file that reads back as an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)


def flatten(config: ExperimentConfig) -> dict[str, Any]:
    """Every field by dotted name, in the schema's order. Without a search, no `search.` names."""

    def walk(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
        for name in type(section).model_fields:
            value = getattr(section, name)
            if isinstance(value, BaseModel):
                yield from walk(value, f"{prefix}{name}.")
            elif value is not None or prefix:
                yield prefix + name, value

    return dict(walk(config, ""))


def fields() -> dict[str, FieldInfo]:
    """Every known dotted name with pydantic's description of the field, in the schema's order."""

    def walk(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
        for name, field in schema.model_fields.items():
            section = SearchConfig if name == "search" else field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from walk(section, f"{prefix}{name}.")
            else:
                yield prefix + name, field

    return dict(walk(ExperimentConfig, ""))
