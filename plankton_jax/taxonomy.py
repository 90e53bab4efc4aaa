"""The tree of classes, as arrays.

A label is a leaf of the tree; what lies above it is read off here and nowhere else. Levels are
ordered coarse to fine and every leaf has one node on every level. Reads csv files; otherwise pure.
"""

import csv
import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from plankton_jax.errors import UserError, raise_all

LEAF_COLUMNS = ("taxon", "leaf", "class")


def normalised_name(name: str) -> str:
    """The form in which two class names that a reader would take for one are equal."""
    folded = unicodedata.normalize("NFC", name).casefold().replace("_", " ")
    return " ".join(folded.split())


@dataclasses.dataclass(frozen=True, eq=False)
class Taxonomy:
    """A tree whose leaves are the classes, every leaf at the same depth.

    Attributes:
      level_names: names of the levels, coarse to fine; the last one holds the leaves.
      node_names: for every level the names of its nodes.
      ancestors: int32 `levels leaves`; the node at each level above each leaf (last row: itself).
    """

    level_names: tuple[str, ...]
    node_names: tuple[tuple[str, ...], ...]
    ancestors: np.ndarray

    @property
    def depth(self) -> int:
        """The number of levels, leaves included."""
        return len(self.level_names)

    @property
    def leaf_names(self) -> tuple[str, ...]:
        """The class names, in label order."""
        return self.node_names[-1]

    @property
    def num_leaves(self) -> int:
        """The number of classes."""
        return len(self.node_names[-1])

    @functools.cached_property
    def parents(self) -> tuple[np.ndarray, ...]:
        """For each level, the index one level up of each of its nodes; empty for the first."""
        result = [np.zeros(0, np.int32)]
        for level in range(1, self.depth):
            parent = np.zeros(len(self.node_names[level]), np.int32)
            parent[self.ancestors[level]] = self.ancestors[level - 1]
            result.append(parent)
        return tuple(result)

    @functools.cached_property
    def leaf_distances(self) -> np.ndarray:
        """Between every two leaves the height of their lowest common node over the tree's own:
        float64 `leaves leaves`, 0 for a leaf and itself, 1 where the first level differs already.
        """
        same = self.ancestors[:, :, None] == self.ancestors[:, None, :]
        return 1.0 - same.sum(axis=0) / self.depth

    def children(self, level: int, node: int) -> np.ndarray:
        """The nodes of level `level + 1` directly below `node` of level `level`."""
        if level + 1 >= self.depth:
            return np.zeros(0, np.int32)
        return np.flatnonzero(self.parents[level + 1] == node).astype(np.int32)

    def leaves_under(self, level: int, node: int) -> np.ndarray:
        """The leaves below (or at) `node` of level `level`."""
        return np.flatnonzero(self.ancestors[level] == node).astype(np.int32)

    def path(self, leaf: int) -> tuple[str, ...]:
        """The names from the coarsest level down to the leaf itself."""
        return tuple(
            names[node]
            for names, node in zip(self.node_names, self.ancestors[:, leaf], strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """A plain object that `from_json` turns back into the same taxonomy."""
        paths = [list(self.path(leaf)) for leaf in range(self.num_leaves)]
        return {"levels": list(self.level_names), "paths": paths}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls.from_paths(value["levels"], [tuple(path) for path in value["paths"]])

    @classmethod
    def from_paths(
        cls, level_names: Sequence[str], paths: Sequence[Sequence[str]], source: str = "taxonomy"
    ) -> Self:
        """Builds the tree from one path of names, coarse to fine, for each leaf.

        Leaves keep the order given; nodes of the other levels are numbered as they first occur. A
        node is its whole path, so equal inner names under different parents are different nodes.

        Raises:
          UserError: no leaf, a path of another length, an empty name, a leaf given twice or with
            two parents, leaf names alike but for case or spaces. All problems at once.
        """
        paths = [tuple(path) for path in paths]
        raise_all(_path_problems(tuple(level_names), paths, source))
        ancestors = np.zeros((len(level_names), len(paths)), np.int32)
        node_names = []
        for level in range(len(level_names)):
            prefixes = [path[: level + 1] for path in paths]
            numbers = {prefix: i for i, prefix in enumerate(dict.fromkeys(prefixes))}
            ancestors[level] = [numbers[prefix] for prefix in prefixes]
            node_names.append(tuple(prefix[-1] for prefix in numbers))
        return cls(tuple(level_names), tuple(node_names), ancestors)

    @classmethod
    def flat(cls, leaf_names: Sequence[str]) -> Self:
        """A tree of depth 1: classes and nothing above them."""
        return cls.from_paths(("taxon",), [(name,) for name in leaf_names])

    @classmethod
    def from_csv(cls, path: str | pathlib.Path) -> Self:
        """Reads a table with one row for each leaf.

        The columns `level1`, `level2`, ... (in the order of their numbers) and then `taxon` (or
        `leaf`, or `class`) make the path; other columns are left alone. A file with none of these
        names is read as a path by all of its columns, left to right.

        Raises:
          UserError: the file cannot be read or does not hold a tree; see `from_paths`.
        """
        path = pathlib.Path(path)
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"taxonomy {path}: cannot be read ({error}). Give a comma-separated table in UTF-8 "
                "with the columns level1, level2, ..., taxon."
            ) from error
        if len(rows) < 2:
            raise UserError(f"taxonomy {path}: no rows. Needed: a header line and one row a leaf.")
        columns = _path_columns([cell.strip() for cell in rows[0]], path)
        short = [number for number, row in enumerate(rows, 1) if len(row) <= max(columns)]
        if short:
            raise UserError(
                f"taxonomy {path}: row(s) {short[:5]} have fewer cells than the header names."
            )
        names = [rows[0][column].strip() for column in columns]
        paths = [tuple(row[column].strip() for column in columns) for row in rows[1:]]
        return cls.from_paths(names, paths, source=f"taxonomy {path}")


def _path_columns(header: list[str], path: pathlib.Path) -> list[int]:
    """The positions of the columns that make the path, coarse to fine."""
    header = [name.casefold() for name in header]
    levels = sorted(
        (int(name[5:]), column)
        for column, name in enumerate(header)
        if name.startswith("level") and name[5:].isdigit()
    )
    leaf = next((header.index(name) for name in LEAF_COLUMNS if name in header), None)
    if leaf is not None:
        return [column for _, column in levels] + [leaf]
    if levels:
        return [column for _, column in levels]
    if len(set(header)) != len(header) or "" in header:
        raise UserError(f"taxonomy {path}: empty or repeated column names in {header}.")
    return list(range(len(header)))


def _path_problems(levels: tuple[str, ...], paths: list[tuple[str, ...]], source: str) -> list[str]:
    """Everything that keeps `paths` from being a tree with these levels."""
    problems = []
    if not levels or not paths:
        return [f"{source}: no levels or no leaves; at least one of each is needed."]
    if len(set(levels)) != len(levels):
        problems.append(f"{source}: level names repeat: {list(levels)}.")
    seen: dict[str, tuple[str, ...]] = {}
    folded: dict[str, str] = {}
    for number, path in enumerate(paths, 1):
        if len(path) != len(levels):
            problems.append(
                f"{source}: row {number} has {len(path)} names for {len(levels)} levels."
            )
            continue
        if not all(name.strip() for name in path):
            problems.append(f"{source}: row {number} has an empty name: {list(path)}.")
            continue
        problem = _leaf_problem(path, seen.get(path[-1]), folded.get(normalised_name(path[-1])))
        if problem:
            problems.append(f"{source}: {problem}")
        seen.setdefault(path[-1], path)
        folded.setdefault(normalised_name(path[-1]), path[-1])
    return problems


def _leaf_problem(path: tuple[str, ...], same: tuple[str, ...] | None, alike: str | None) -> str:
    """What is wrong with one more leaf, given an earlier one of the same or a like name."""
    leaf = path[-1]
    if same == path:
        return f'duplicate leaf "{leaf}". Keep one of its rows.'
    if same is not None:
        return (
            f'leaf "{leaf}" has two parents, "{"/".join(same[:-1])}" and "{"/".join(path[:-1])}". '
            "Rename one of the two or keep one of its rows."
        )
    if alike is not None:
        return f'leaves "{alike}" and "{leaf}" differ only in case or spaces. Merge or rename them.'
    return ""
