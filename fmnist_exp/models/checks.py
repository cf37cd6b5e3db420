"""The families' checks of a ModelConfig, which answer a wrong request before Keras is imported."""

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError


def has_a_width(config: ModelConfig) -> None:
    """Raise RequestError if `widths` is empty: the stem takes its filters from the first one."""
    if not config.widths:
        raise RequestError(f"model.widths=[]: {config.family} needs at least one width")


def maps_keep_pixels(config: ModelConfig) -> None:
    """Raise RequestError if `valid` padding leaves no pixel of the maps."""
    side = 28
    for block, convolutions in enumerate(config.convolutions_per_block()):
        for position in range(convolutions if config.padding == "valid" else 0):
            stride = config.stem_stride if block == position == 0 else 1
            side = (side - config.kernel_size) // stride + 1
            if side < 1:
                raise RequestError(
                    f"model.padding=valid: no pixel of the maps is left in block {block + 1} of {len(config.widths)};"
                    " use fewer model.widths, or model.padding=same"
                )
            side = side // 2 if config.pool_first and position == 0 and side > 1 else side
        side = side // 2 if not config.pool_first and side > 1 else side
