"""The schema of an experiment: typed, frozen, every field with its unit and range.

This is the one place where a default is written down. Files and overrides are read in experiment_files.py.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, model_validator
from pydantic.fields import FieldInfo

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.config.section import Section, Width

Convolutions = Annotated[int, Field(ge=1, le=4)]
Dropout = Annotated[float, Field(ge=0, le=0.95)]


class DataConfig(Section):
    """Where the images come from, and how they are divided."""

    source: str | None = Field(None, description="folder with the IDX or CSV files; empty: find the data")
    validation_fraction: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="part of the 60,000 kept for validation, 0.01 or more; 0: none",
    )
    split_seed: int | None = Field(
        None, ge=0, le=2**32 - 1, description="of the split alone, so that runs with other seeds share it; empty: seed"
    )

    @model_validator(mode="after")
    def _enough_or_none(self) -> "DataConfig":
        if 0 < self.validation_fraction < 0.01:
            raise ValueError("data.validation_fraction must be 0 or at least 0.01 and at most 0.5")
        return self


class AugmentationConfig(Section):
    """What happens to training images, on the fly or in copies made beforehand. All off by default."""

    horizontal_flip: bool = Field(False, description="mirror every second image, left to right")
    rotation: float = Field(0.0, ge=0, le=180, description="largest turn in either direction, degrees")
    shear: float = Field(0.0, ge=0, le=60, description="largest slant in either direction, degrees")
    zoom: float = Field(0.0, ge=0, le=0.9, description="largest change of size, part of it")
    shift: int = Field(0, ge=0, le=8, description="largest shift in either direction, pixels")
    erasing: float = Field(0.0, ge=0, le=1, description="probability that a random rectangle is erased")
    mixup: float = Field(0.0, ge=0, le=10, description="blend pairs of images; alpha of the Beta law; needs one_hot")
    cutmix: float = Field(0.0, ge=0, le=10, description="paste parts of others; alpha of the Beta law; needs one_hot")
    copies: int = Field(0, ge=0, le=10, description="changed copies of each image beside the originals; 0: on the fly")

    @model_validator(mode="after")
    def _copies_need_a_transform(self) -> "AugmentationConfig":
        if self.copies and not self.transforms():
            raise ValueError("augmentation.copies needs a transform, as augmentation.rotation=10")
        return self

    def transforms(self) -> dict[str, bool | int | float]:
        """The fields that change a single image, of those that are on."""
        others = {"mixup", "cutmix", "copies"}
        return {name: value for name, value in self if value and name not in others}


class ModelConfig(Section):
    """The network. A family ignores the fields that it has no use for."""

    family: str = Field("cnn", description="kind of network")
    widths: tuple[Width, ...] = Field((32, 64), max_length=8, description="units per layer or filters per block")
    dropout: Dropout | tuple[Dropout, ...] = Field(0.0, description="fraction dropped after each layer or block")
    l2: float = Field(0.0, ge=0, le=1, description="L2 penalty on the kernels")
    batch_norm: bool = Field(False, description="normalise each layer's output")
    norm_position: Literal["before_activation", "after_activation"] = Field(
        "before_activation", description="where batch_norm stands"
    )
    norm_first_only: bool = Field(False, description="batch_norm for a block's first convolution only (cnn)")
    activation: Literal["relu", "silu"] = Field("relu", description="activation function")
    convolutions: Convolutions | tuple[Convolutions, ...] = Field(
        2, description="per block, one number or a list (cnn)"
    )
    residual: bool = Field(False, description="add the input of a block's later convolutions to their output (cnn)")
    pool_first: bool = Field(False, description="halve the maps after a block's first convolution, not its last (cnn)")
    kernel_size: int = Field(3, ge=1, le=7, description="side of a convolution kernel, pixels (cnn)")
    padding: Literal["same", "valid"] = Field("same", description="of the convolutions (cnn)")
    stem_stride: int = Field(1, ge=1, le=2, description="stride of the first convolution, pixels (cnn)")
    pooling: Literal["flatten", "average"] = Field("flatten", description="from feature maps to a vector (cnn)")
    head_widths: tuple[Width, ...] = Field((), max_length=4, description="units per dense layer after the blocks (cnn)")
    head_batch_norm: bool = Field(True, description="batch_norm for the head_widths too (cnn)")
    head_dropout: float = Field(0.0, ge=0, le=0.95, description="fraction dropped before the output (cnn)")
    averaging: Literal["none", "flip", "flip_shift"] = Field(
        "none", description="average the answers for an image and its mirror image, or both moved by a pixel too"
    )
    members: tuple[str, ...] = Field(
        (), max_length=20, description="models:/… or runs:/RUN_ID to average, instead of training a network"
    )
    warm_start: str | None = Field(None, description="models:/… or runs:/RUN_ID whose weights to begin with")
    frozen: int = Field(0, ge=0, le=100, description="layers with weights, from the first, that are not trained")

    @model_validator(mode="after")
    def _fields_agree(self) -> "ModelConfig":
        for name in ("dropout", "convolutions"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.widths):
                raise ValueError(f"model.{name} lists {len(value)} values for {len(self.widths)} model.widths")
        if self.residual and self.padding == "valid":
            raise ValueError("model.residual needs model.padding=same")
        if self.members and (self.warm_start or self.frozen):
            raise ValueError("model.members are not trained again: they go with neither warm_start nor frozen")
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
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = Field(
        "adam", description="sgd has Nesterov momentum; muon is for convolutions, and slow for wide dense layers"
    )
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the peak, where the schedule has one")
    momentum: float = Field(0.9, ge=0, le=0.999, description="sgd and muon only")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decoupled; not for adam")
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
    ema: float = Field(0.0, ge=0, le=0.9999, description="momentum of the moving average that replaces the weights")
    checkpoint: bool = Field(False, description="keep the best epoch's file, and the state to go on from when killed")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="of activations, weights stay float32; auto: what is faster, by a few steps of both"
    )
    steps_per_execution: int = Field(10, ge=1, le=1000, description="steps per call into the compiled graph")

    @model_validator(mode="after")
    def _smoothing_needs_one_hot(self) -> "TrainingConfig":
        if self.label_smoothing and self.labels != "one_hot":
            raise ValueError("training.label_smoothing needs training.labels=one_hot")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("training.weight_decay needs training.optimizer=adamw, sgd or muon")
        return self


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

    @model_validator(mode="after")
    def _mixing_needs_one_hot(self) -> "ExperimentConfig":
        for name in ("mixup", "cutmix"):
            if getattr(self.augmentation, name) and self.training.labels != "one_hot":
                raise ValueError(f"augmentation.{name} needs training.labels=one_hot")
        return self

    @model_validator(mode="after")
    def _without_validation(self) -> "ExperimentConfig":
        """Without validation images every epoch is run, and the last one is kept: nothing may depend on them."""
        if self.data.validation_fraction:
            return self
        plateau = "training.schedule=plateau" if self.training.schedule == "plateau" else ""
        watching = {"training.patience": self.training.patience, "training.checkpoint": self.training.checkpoint}
        wants = [plateau, *(name for name, value in watching.items() if value), "search" if self.search else ""]
        if name := next(filter(None, wants), None):
            raise ValueError(f"data.validation_fraction=0 leaves no validation images, which {name} needs")
        return self

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
