"""From the folders that hold images to a taxonomy, and from folders to its leaves. Pure."""

import os
from collections.abc import Iterable, Sequence

from plankton_jax.errors import near_miss, raise_all
from plankton_jax.taxonomy import Taxonomy, normalised_name


def common_top(paths: Iterable[str]) -> str:
    """The folder, with its "/", that holds the class folders of all image paths; "" for none.

    Folders that contain nothing but one other folder say nothing about the classes, as `train` in
    `train/<class>/<image>`.
    """
    folders = {path.rpartition("/")[0] for path in paths}
    if not folders:
        return ""
    top = os.path.commonpath(folders)
    if top in folders:  # it holds images itself, so it is a class
        top = os.path.dirname(top)
    return top + "/" if top else ""


def from_folders(folders: Sequence[str], source: str) -> tuple[Taxonomy, dict[str, int]]:
    """A tree whose levels are those of the folders; the leaves are the folders with images.

    A branch that is less deep than others repeats its last name down to the leaves.

    Raises:
      UserError: two folders of one name, or of names that differ only in case or spaces.
    """
    parts = [tuple(folder.split("/")) for folder in folders]
    depth = max(map(len, parts))
    levels = [f"level{level}" for level in range(1, depth)] + ["taxon"]
    paths = [path + path[-1:] * (depth - len(path)) for path in parts]
    taxonomy = Taxonomy.from_paths(levels, paths, source=source)
    return taxonomy, {folder: leaf for leaf, folder in enumerate(folders)}


def match(
    folders: Sequence[str], taxonomy: Taxonomy, source: str
) -> tuple[Taxonomy, dict[str, int]]:
    """The leaf of each folder, by its path below the top or by its own name.

    Case, Unicode form, and spaces for underscores make no difference, since within a taxonomy no
    two leaves differ by them alone. Folders of one name under different parents, as of years, are
    one class.

    Raises:
      UserError: folders that no leaf is named after, or folders of names that differ in spelling
        alone; all of them.
    """
    numbers = {normalised_name(name): leaf for leaf, name in enumerate(taxonomy.leaf_names)}
    leaves, problems = {}, []
    spelling: dict[int, tuple[str, str]] = {}
    for folder in folders:
        name = folder.rpartition("/")[2]
        whole = normalised_name(folder) in numbers  # a class may have a slash in its name
        leaf = numbers.get(normalised_name(folder if whole else name))
        if leaf is None:
            hint = near_miss(name, taxonomy.leaf_names)
            problems.append(
                f'{source}: class folder "{folder}" is not in config.data.taxonomy_csv. {hint} '
                "Add it to the table or rename the folder."
            )
            continue
        leaves[folder] = leaf
        first, other = spelling.setdefault(leaf, (name, folder))
        if first != name and not whole:
            problems.append(
                f'{source}: class folders "{other}" and "{folder}" would both be the class '
                f'"{taxonomy.leaf_names[leaf]}". Give them one name, or each its own row in '
                "config.data.taxonomy_csv."
            )
    raise_all(problems)
    return taxonomy, leaves
