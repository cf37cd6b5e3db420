"""The schema of an experiment file: typed and frozen sections, and every field's default, range and description.

A field's docstring is its description in `--help` and docs/interface.md. Files and overrides are read in files.py.
"""

from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from fmnist_exp.config.search import FinalValues, SearchConfig, Section, Width

Convolutions = Annotated[int, Field(ge=1, le=4)]
Dropout = Annotated[float, Field(ge=0, le=0.95)]
LARGEST_HOLDOUT = 0.9  # of the images: validation and gate together


class DataConfig(Section):
    """The source of the images and their split into training, validation and gate."""

    source: str | None = None
    """Folder that holds the IDX or CSV files. If empty, the data set is located automatically."""
    validation_fraction: float = Field(0.1, ge=0, le=0.5)
    """Fraction of the 60,000 images that is kept for validation: 0, or at least 0.01."""
    gate_fraction: float = Field(0.1, ge=0, le=0.5)
    """Fraction of the 60,000 images that no fit and no choice of an epoch or a trial uses: 0, or at least 0.01. The
    gate compares models on them, and a search measures on them what it gained. They are the same images in all
    experiments."""
    split_seed: int | None = Field(None, ge=0, le=2**32 - 1)
    """Random seed of the split alone, so that runs with different seeds share it. If empty, `seed` decides."""

    @model_validator(mode="after")
    def _enough_or_none(self) -> "DataConfig":
        for name in ("validation_fraction", "gate_fraction"):
            if 0 < getattr(self, name) < 0.01:
                raise ValueError(f"data.{name} must be 0 or at least 0.01 and at most 0.5")
        if self.validation_fraction + self.gate_fraction > LARGEST_HOLDOUT:
            raise ValueError(
                f"data.validation_fraction={self.validation_fraction:g} and data.gate_fraction={self.gate_fraction:g}"
                f" leave too few images for training; together they may be at most {LARGEST_HOLDOUT}"
            )
        return self


class AugmentationConfig(Section):
    """Random changes of the training images, in every batch or in copies made in advance. All are off by default."""

    horizontal_flip: bool = False
    """Mirror each image, left to right, with probability 0.5."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Largest rotation in either direction, in degrees."""
    shear: float = Field(0.0, ge=0, le=60)
    """Largest shear in either direction, in degrees."""
    zoom: float = Field(0.0, ge=0, le=0.9)
    """Largest enlargement or reduction, as a fraction of the image's size."""
    shift: int = Field(0, ge=0, le=8)
    """Largest shift in every direction, in pixels."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability that a random rectangle of an image is replaced by noise."""
    mixup: float = Field(0.0, ge=0, le=10)
    """Alpha of the Beta distribution for blending pairs of images; 0 turns it off. Requires training.labels=one_hot."""
    cutmix: float = Field(0.0, ge=0, le=10)
    """Alpha of the Beta distribution for the area pasted from another image; 0 turns it off. Requires
    training.labels=one_hot."""
    copies: int = Field(0, ge=0, le=10)
    """Number of augmented copies of each image, made before training; with 0, each batch is augmented instead."""

    @model_validator(mode="after")
    def _copies_require_a_transform(self) -> "AugmentationConfig":
        if self.copies and not self.transforms():
            raise ValueError("augmentation.copies requires a transform, e.g. augmentation.rotation=10")
        return self

    def transforms(self) -> dict[str, bool | int | float]:
        """Return the fields that are on and change a single image, with their values."""
        others = {"mixup", "cutmix", "copies"}
        return {name: value for name, value in self if value and name not in others}


class ModelConfig(Section):
    """The network. Each family uses some of the fields and ignores the others; `fmnist_exp.models` says which."""

    family: str = "cnn"
    """Kind of network."""
    widths: tuple[Width, ...] = Field((32, 64), max_length=8)
    """Number of units of each dense layer, or of filters of each block of convolutions."""
    dropout: Dropout | tuple[Dropout, ...] = 0.0
    """Fraction of values dropped after each layer or block: one number, or a list with one for each width."""
    l2: float = Field(0.0, ge=0, le=1)
    """Factor of the L2 penalty on the kernels."""
    batch_norm: bool = False
    """Normalise the output of each layer over the batch."""
    norm_position: Literal["before_activation", "after_activation"] = "before_activation"
    """Position of the batch normalisation."""
    norm_first_only: bool = False
    """Use batch normalisation only after the first convolution of each block."""
    activation: Literal["relu", "silu"] = "relu"
    """Activation function of the hidden layers."""
    convolutions: Convolutions | tuple[Convolutions, ...] = 2
    """Number of convolutions in each block (residual blocks in each stage of a resnet): one number, or a list with one
    for each width."""
    residual: bool = False
    """Add the input of each convolution but a block's first to its output."""
    pool_first: bool = False
    """Halve the feature maps after the first convolution of a block instead of after the last one."""
    kernel_size: int = Field(3, ge=1, le=7)
    """Side of the convolution kernels, in pixels."""
    padding: Literal["same", "valid"] = "same"
    """Padding of the convolutions; valid adds no border, so the feature maps shrink."""
    stem_stride: int = Field(1, ge=1, le=2)
    """Stride of the first convolution, in pixels."""
    pooling: Literal["flatten", "average"] = "flatten"
    """How the last feature maps become a vector: all of their pixels, or the average of each map."""
    head_widths: tuple[Width, ...] = Field((), max_length=4)
    """Number of units of each dense layer between the feature maps and the output."""
    head_batch_norm: bool = True
    """Use batch normalisation, if it is on, in the dense layers of head_widths too."""
    head_dropout: float = Field(0.0, ge=0, le=0.95)
    """Fraction of values dropped before the output layer."""
    averaging: Literal["none", "flip", "flip_shift"] = "none"
    """Test-time augmentation: average the probabilities of several views of an image. flip adds its mirror image;
    flip_shift also adds both images shifted up left and down right by one pixel. Prediction takes 2 or 6 times as
    long."""
    members: tuple[str, ...] = Field((), max_length=20)
    """Logged models (models:/… or runs:/RUN_ID) to average as an ensemble, instead of training a network."""
    warm_start: str | None = None
    """Logged model (models:/… or runs:/RUN_ID) whose weights the network starts from."""
    frozen: int = Field(0, ge=0, le=100)
    """Number of layers with weights, counted from the first, that are not trained."""

    @model_validator(mode="after")
    def _fields_agree(self) -> "ModelConfig":
        for name in ("dropout", "convolutions"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.widths):
                raise ValueError(f"model.{name} lists {len(value)} values for {len(self.widths)} model.widths")
        if self.residual and self.padding == "valid":
            raise ValueError("model.residual requires model.padding=same")
        if self.members and (self.warm_start or self.frozen):
            raise ValueError(
                "model.members, which are not trained, is incompatible with model.warm_start and model.frozen"
            )
        return self

    def dropouts(self) -> tuple[float, ...]:
        """Return the dropout of each layer or block, one for each width."""
        return self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * len(self.widths)

    def convolutions_per_block(self) -> tuple[int, ...]:
        """Return the number of convolutions of each block, one for each width."""
        return self.convolutions if isinstance(self.convolutions, tuple) else (self.convolutions,) * len(self.widths)


class TrainingConfig(Section):
    """The training of the network."""

    epochs: int = Field(10, ge=1, le=1000)
    """Largest number of passes over the training images."""
    batch_size: int = Field(128, ge=1, le=60_000)
    """Number of images in each optimizer step."""
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    """Optimizer. sgd has Nesterov momentum; muon suits convolutions, and is slow for wide dense layers."""
    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Learning rate: the peak of one_cycle, the first value of the other schedules."""
    momentum: float = Field(0.9, ge=0, le=0.999)
    """Momentum of sgd and muon."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Factor of the decoupled weight decay of adamw, sgd and muon."""
    schedule: Literal["constant", "one_cycle", "plateau"] = "constant"
    """Schedule of the learning rate."""
    warmup: float = Field(0.25, ge=0, le=0.9)
    """Fraction of the steps during which one_cycle raises the learning rate."""
    plateau_patience: int = Field(2, ge=1, le=100)
    """Number of epochs without improvement after which plateau reduces the learning rate."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    """Factor by which plateau multiplies the learning rate."""
    label_smoothing: float = Field(0.0, ge=0, le=0.5)
    """Fraction of each label that is spread over all ten classes. Requires training.labels=one_hot."""
    labels: Literal["integer", "one_hot"] = "integer"
    """Encoding of the labels, and with it the loss: sparse or categorical cross-entropy."""
    monitor: Literal["val_loss", "val_accuracy"] = "val_accuracy"
    """Metric that decides which epoch is the best."""
    patience: int | None = Field(None, ge=1, le=1000)
    """Number of epochs without improvement after which training stops. If empty, all epochs are run."""
    ema: float = Field(0.0, ge=0, le=0.9999)
    """Momentum of the exponential moving average that replaces the weights after training; 0 turns it off."""
    checkpoint: bool = False
    """Log the best epoch's network as the model `checkpoint`, and after every epoch keep the state from which a killed
    run can be resumed."""
    precision: Literal["auto", "measure", "float32", "bfloat16"] = "auto"
    """Precision of the computation; weights stay float32. auto takes bfloat16 if the processor or GPU computes faster
    in it and the network has batch normalization, otherwise float32; measure times a few steps in both, once per
    processor and network."""
    steps_per_execution: int = Field(10, ge=1, le=1000)
    """Number of optimizer steps in each call of the compiled graph."""

    @model_validator(mode="after")
    def _fields_agree(self) -> "TrainingConfig":
        if self.label_smoothing and self.labels != "one_hot":
            raise ValueError("training.label_smoothing requires training.labels=one_hot")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("training.weight_decay requires training.optimizer=adamw, sgd or muon")
        return self


class GateConfig(Section):
    """The conditions under which a challenger becomes champion."""

    level: float = Field(0.05, gt=0, le=0.5)
    """Probability that a champion is replaced by chance, by any of its challengers: the level of all tests together."""
    min_images: int = Field(500, ge=1, le=60_000)
    """Smallest number of images, not trained or chosen on by either model, on which the two are compared."""


class ExperimentConfig(Section):
    """One experiment: all settings that determine its results."""

    name: str = Field("experiment", min_length=1)
    """Name of the experiment. If the file gives none, it is the file's name."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Random seed of the split, the initial weights, the order of the images and the search."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    search: SearchConfig | None = None
    final: FinalValues | None = None
    """Values of model, training and augmentation fields with which the winner of a search is trained once more on the
    same images, for as many of these epochs as the time limit allows. That network is registered."""
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> "ExperimentConfig":
        for name in ("mixup", "cutmix"):
            if getattr(self.augmentation, name) and self.training.labels != "one_hot":
                raise ValueError(f"augmentation.{name} requires training.labels=one_hot")
        if self.final is not None and self.search is None:
            raise ValueError("final requires an experiment with a search, e.g. tune_cnn")
        watching = {  # what needs validation images; without them all epochs are run and the last one is kept
            "training.schedule=plateau": self.training.schedule == "plateau",
            "training.patience": self.training.patience,
            "training.checkpoint": self.training.checkpoint,
            "search": self.search,
        }
        first = next((name for name, is_on in watching.items() if is_on), "")
        if first and not self.data.validation_fraction:
            raise ValueError(f"data.validation_fraction=0 leaves no validation images, which {first} requires")
        return self

    def without_search(self) -> Self:
        """Return the experiment alone, which is what a single run fits."""
        return self.model_copy(update={"search": None, "final": None})

    def to_yaml(self) -> str:
        """Return the experiment as YAML text that reads back as an equal experiment."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)
