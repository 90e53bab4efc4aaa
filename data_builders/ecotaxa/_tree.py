"""From EcoTaxa's hierarchies to a taxonomy. Pure."""

import collections
from collections.abc import Iterable

from plankton_jax.taxonomy import Taxonomy

UNKNOWN = "unplaced"
"""What stands above classes without a hierarchy, where others have one."""


def taxonomy_of(classes: Iterable[tuple[str, tuple[str, ...]]], source: str) -> Taxonomy:
    """The tree of (label, hierarchy) pairs.

    A class may lie above another: its last name is repeated down to the leaves. Levels at which no
    class parts from another that was together with it one level up say nothing and are left out.

    Raises:
      UserError: names that differ in case or spaces alone.
    """
    paths: dict[str, tuple[str, ...]] = {}
    for label, hierarchy in classes:
        if len(hierarchy) > len(paths.get(label, ())) or label not in paths:
            paths[label] = hierarchy
    labels = sorted(paths, key=lambda label: (paths[label], label))
    depth = max(len(path) for path in paths.values())
    whole = [paths[label] or (UNKNOWN,) for label in labels]
    padded = [path + path[-1:] * (depth - len(path)) for path in whole]
    # The last level is the classes themselves.
    levels = _telling([[path[: level + 1] for path in padded] for level in range(depth - 1)])
    names = [f"level{number}" for number in range(1, len(levels) + 1)] + ["taxon"]
    rows = [
        (*(padded[leaf][level] for level in levels), label) for leaf, label in enumerate(labels)
    ]
    return Taxonomy.from_paths(names, rows, source=source)


def _telling(levels: list[list[tuple[str, ...]]]) -> list[int]:
    """The levels that part the classes otherwise than the one before and than single classes."""
    kept: list[int] = []
    before = 1
    for level, nodes in enumerate(levels):
        count = len(collections.Counter(nodes))
        if before < count < len(nodes):
            kept.append(level)
            before = count
    return kept
