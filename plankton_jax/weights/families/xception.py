"""Xception as in its authors' own files, which count ReLUs and pooling among a block's layers."""

from plankton_jax.models.xception import Xception
from plankton_jax.weights.rules import Rule, batch_norm, convolution, input_convolution, linear

BACKBONE = Xception

_BLOCKS = {f"block{number}": f"backbone/entry/{number - 1}" for number in range(1, 4)}
_BLOCKS |= {f"block{number}": f"backbone/middle/{number - 4}" for number in range(4, 12)}
_BLOCKS["block12"] = "backbone/exit"


def _unit(convolutions: str, norm: str, target: str) -> tuple[Rule, ...]:
    return (
        *convolution(f"{convolutions}.conv1", f"{target}/depthwise"),
        *convolution(f"{convolutions}.pointwise", f"{target}/pointwise"),
        *batch_norm(norm, f"{target}/norm"),
    )


def _block(source: str, target: str) -> tuple[Rule, ...]:
    # Only the first block starts with a convolution, the others with a ReLU.
    start = 0 if source == "block1" else 1
    places = range(start, start + 9, 3)
    units = [
        _unit(f"{source}.rep.{place}", f"{source}.rep.{place + 1}", f"{target}/units/{number}")
        for number, place in enumerate(places)
    ]
    return (
        *(rule for unit in units for rule in unit),
        *convolution(f"{source}.skip", f"{target}/skip/conv"),
        *batch_norm(f"{source}.skipbn", f"{target}/skip/bn"),
    )


RULES = (
    *input_convolution("conv1", "backbone/stem/0/conv"),
    *batch_norm("bn1", "backbone/stem/0/bn"),
    *convolution("conv2", "backbone/stem/1/conv"),
    *batch_norm("bn2", "backbone/stem/1/bn"),
    *(rule for source, target in _BLOCKS.items() for rule in _block(source, target)),
    *_unit("conv3", "bn3", "backbone/last/0"),
    *_unit("conv4", "bn4", "backbone/last/1"),
    *linear("fc", "head/linear"),
    # The head's name in older files.
    *linear("last_linear", "head/linear"),
)
