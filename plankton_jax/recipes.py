"""Settings that several configuration files share. Pure functions of a `Config`."""

from plankton_jax.config import Config
from plankton_jax.errors import UserError, near_miss
from plankton_jax.names import BRANCH_HEADS

BRANCH_TRAINING = ((0.98, 0.01, 0.01), (0.1, 0.8, 0.1), (0.1, 0.2, 0.7), (0.01, 0.01, 0.98))
"""Level weights of branch training, coarse to fine (Zhu & Bain 2017, and the report)."""

SWITCHES = (15 / 50, 25 / 50, 35 / 50)
"""When the next row of weights takes over, as shares of the epochs: the report's 15, 25 and 35."""

HEADS = ("flat", *BRANCH_HEADS, "coherent")


def hierarchical(config: Config, head: str | None, file: str) -> Config:
    """Sets a head and the training that goes with it, for a tree of three levels.

    "flat" is the linear head with cross-entropy; the branch heads have branch training over the
    configuration's epochs; "coherent" has the cross-entropies of all levels, equally.

    Args:
      head: the argument of the configuration file; none: flat.
      file: its name, for the message.

    Raises:
      UserError: an unknown head.
    """
    head = head or "flat"
    if head not in HEADS:
        raise UserError(f'{file}: found argument "{head}". {near_miss(head, HEADS)}')
    if head == "flat":
        return config
    config.model.head = head
    config.loss.name = "level_cross_entropy"
    if head == "coherent":
        return config
    config.loss.level_weights = BRANCH_TRAINING
    config.loss.level_epochs = tuple(round(share * config.train.epochs, 3) for share in SWITCHES)
    return config
