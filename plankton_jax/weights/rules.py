"""The lines of the tables that say how parameters are called in timm and here.

A rule's names are templates: `{block}` stands for one part of a name, the same on both sides. The
first rule that fits counts, in both directions; one whose target the network does not have is
passed over. A rule without target drops its key.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
      source: name in timm's state dict.
      target: path in this package's parameters or model state; empty: the key is not needed.
      transform: a name in `plankton_jax.weights.timm_names.TRANSFORMS`.
    """

    source: str
    target: str
    transform: str = "same"


@dataclasses.dataclass(frozen=True)
class OldNames:
    """How older files name a part of a network, where the name alone does not tell them apart.

    Attributes:
      marker: a name that only older files have.
      source: template of the old names.
      numbers: what is added to a placeholder that is a number, to get the present name.
    """

    marker: str
    source: str
    numbers: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class OptionalPart:
    """A part of a network that a public file of its family may lack as a whole.

    Attributes:
      sources: how the names of the part begin in timm's state dict, and of what it comes with; a
        file that has one of them has to have the part.
      targets: how the paths begin that keep the network's own values.
      initial: for a network of shapes alone the value of each kind of parameter.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    initial: Mapping[str, float] = dataclasses.field(default_factory=dict)


def linear(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a linear layer."""
    return (
        Rule(f"{source}.weight", f"{target}/kernel", "transpose"),
        Rule(f"{source}.bias", f"{target}/bias"),
    )


def norm(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a layer norm, or of what else has a scale and an offset."""
    return (Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias"))


def batch_norm(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a batch norm; torch's count of batches has no place here."""
    return (
        *norm(source, target),
        Rule(f"{source}.running_mean", f"{target}/mean"),
        Rule(f"{source}.running_var", f"{target}/variance"),
        Rule(f"{source}.num_batches_tracked", ""),
    )


def convolution(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a convolution with or without offset."""
    return (
        Rule(f"{source}.weight", f"{target}/kernel", "convolution"),
        Rule(f"{source}.bias", f"{target}/bias"),
    )


def input_convolution(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a first convolution, which may be asked to take grey images."""
    return (
        Rule(f"{source}.weight", f"{target}/kernel", "input_convolution"),
        Rule(f"{source}.bias", f"{target}/bias"),
    )
