"""The levels of a network whose features Grad-CAM may read."""

from torch import nn

from penumbra.errors import ConfigError
from penumbra.model import Network


def levels_of(network: Network) -> tuple[nn.Module, ...]:
    """What gives each level's features, from the decoder's finest back to the encoder's finest.

    The first half, with the coarsest in the middle, is what the gates read; of several decoders
    it is the first one's.
    """
    encoder = list(getattr(network.encoder, "levels", ()))
    return (*reversed(network.branches[0].decoder.levels), *reversed(encoder))


def cam_level(network: Network, level: int | None) -> int:
    """The level that CAMs read (``levels_of``); by default the coarsest, as both papers have it.

    That is a classifier's last convolution before pooling (Selvaraju et al. 2017) and a U-Net's
    bottleneck (Vinogradova et al. 2020).

    Raises:
        ConfigError: the network has no such level.
    """
    count = len(levels_of(network))
    if not count:
        raise ConfigError("Grad-CAM reads a level of Penumbra's network; a published one has none")
    if not 0 <= (level := count // 2 if level is None else level) < count:
        raise ConfigError(
            f"--level {level}: this network has levels 0 (the decoder's finest) over {count // 2} "
            f"(the coarsest) to {count - 1} (the encoder's finest)"
        )
    return level


def level_name(network: Network, level: int) -> str:
    """What a legend says of a level.

    Example:
        >>> level_name(Network(channels=1, classes=2, findings=0, dim=2, widths=(8, 8)), 1)
        'encoder level 1, cells of 2 pixels'
    """
    depth = len(levels_of(network)) // 2
    fine = level if level < depth else 2 * depth - level
    return f"{'decoder' if level < depth else 'encoder'} level {fine}, cells of {2**fine} pixels"
