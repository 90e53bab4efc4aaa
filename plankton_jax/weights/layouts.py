"""How other programs wrap and prefix a state dict, as data, and how the wrapping is taken off."""

from collections.abc import Mapping
from typing import Any

from plankton_jax.errors import UserError, raise_all

# Names under which a checkpoint holds its state dict; the first that is there counts, so an
# exponential moving average comes before what it is an average of, as in timm.
CONTAINERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "params",
)

# What wrappers put before the names of parameters: DistributedDataParallel, torch.compile,
# Lightning modules that hold the network as an attribute, a checkpoint flattened into one level.
PREFIXES = ("module.", "_orig_mod.", "state_dict.", "model.", "net.", "network.", "backbone.")


def unwrap(checkpoint: Any) -> tuple[dict[str, Any], str]:
    """The innermost state dict and where it was, such as `state_dict` or `state_dict/model`.

    Raises:
      UserError: there is none.
    """
    where = []
    while isinstance(checkpoint, Mapping):
        inner = next((n for n in CONTAINERS if isinstance(checkpoint.get(n), Mapping)), None)
        if inner is None:
            break
        where.append(inner)
        checkpoint = checkpoint[inner]
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        found = "nothing" if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise UserError(
            f"weights: found {found}; allowed: a state dict, as `model.state_dict()` gives it, "
            f"alone or under one of {', '.join(CONTAINERS)}."
        )
    return dict(checkpoint), "/".join(where)


def without_prefixes(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict under the names that the network itself gives.

    Raises:
      UserError: two keys differ in their prefixes alone.
    """
    bare, origins, problems = {}, {}, []
    for name, value in state_dict.items():
        short = _without_prefixes(name)
        if short in bare:
            problems.append(f"weights: {origins[short]} and {name} both stand for {short}.")
        bare[short], origins[short] = value, name
    raise_all(problems)
    return bare


def _without_prefixes(name: str) -> str:
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return _without_prefixes(name[len(prefix) :]) if prefix else name
