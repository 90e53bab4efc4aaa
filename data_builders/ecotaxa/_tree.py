"""From EcoTaxa's hierarchies to a taxonomy. Pure."""

import collections
from collections.abc import Iterable

from plankton_jax.errors import raise_all
from plankton_jax.taxonomy import Taxonomy

UNKNOWN = "unplaced"
"""What stands above classes without a hierarchy, where others have one."""

Pair = tuple[str, tuple[str, ...]]
"""A category as it is shown, or "", and the names from the root down to it, or none."""


def class_names(pairs: Iterable[Pair]) -> dict[Pair, str]:
    """The class of every pair: its category or, without one, the category that others of its
    hierarchy have, or the last name of the hierarchy.

    Where several hierarchies end with one name, as many of the names above are put behind it as
    tell them apart, as EcoTaxa does: `part<Crustacea`.
    """
    pairs = sorted(set(pairs))
    hierarchies = {hierarchy for _, hierarchy in pairs if hierarchy}
    alike = collections.Counter(
        hierarchy[-length:] for hierarchy in hierarchies for length in range(1, len(hierarchy) + 1)
    )
    categories: dict[tuple[str, ...], str] = {}
    for category, hierarchy in pairs:
        if category:
            categories.setdefault(hierarchy, category)

    def shown(hierarchy: tuple[str, ...]) -> str:
        lengths = range(1, len(hierarchy) + 1)
        length = next((n for n in lengths if alike[hierarchy[-n:]] == 1), len(hierarchy))
        return categories.get(hierarchy) or "<".join(reversed(hierarchy[-length:]))

    return {(category, path): category or shown(path) for category, path in pairs}


def taxonomy_of(names: dict[Pair, str], source: str) -> Taxonomy:
    """The tree of the classes that `class_names` gives.

    A class may lie above another: its last name is repeated down to the leaves. Levels at which no
    class parts from another that was together with it one level up say nothing and are left out.

    Raises:
      UserError: classes with two hierarchies; names that differ in case or spaces alone.
    """
    paths: dict[str, tuple[str, ...]] = {}
    problems = []
    for (_, hierarchy), label in sorted(names.items()):
        first = paths.get(label)
        if first and hierarchy and first != hierarchy:
            problems.append(
                f'{source}: category "{label}" has two hierarchies, "{">".join(first)}" and '
                f'"{">".join(hierarchy)}". Give each its own name in object_annotation_category, '
                "or all its objects one hierarchy."
            )
        paths[label] = first or hierarchy
    raise_all(problems)
    labels = sorted(paths, key=lambda label: (paths[label], label))
    depth = max(len(path) for path in paths.values())
    whole = [paths[label] or (UNKNOWN,) for label in labels]
    padded = [path + path[-1:] * (depth - len(path)) for path in whole]
    # The last level is the classes themselves.
    levels = _telling([[path[: level + 1] for path in padded] for level in range(depth - 1)])
    names_of_levels = [f"level{number}" for number in range(1, len(levels) + 1)] + ["taxon"]
    rows = [
        (*(padded[leaf][level] for level in levels), label) for leaf, label in enumerate(labels)
    ]
    return Taxonomy.from_paths(names_of_levels, rows, source=source)


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
