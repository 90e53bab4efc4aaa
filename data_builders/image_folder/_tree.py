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
    """The leaf of each folder by the folder's own name; what lies above it has no meaning.

    Case, Unicode form, and spaces for underscores make no difference, since within a taxonomy no
    two leaves differ by them alone.

    Raises:
      UserError: folders that no leaf is named after, all of them.
    """
    numbers = {normalised_name(name): leaf for leaf, name in enumerate(taxonomy.leaf_names)}
    leaves, problems = {}, []
    for folder in folders:
        name = folder.rpartition("/")[2]
        leaf = numbers.get(normalised_name(name))
        if leaf is None:
            hint = near_miss(name, taxonomy.leaf_names)
            problems.append(
                f'{source}: class folder "{folder}" is not in config.data.taxonomy_csv. {hint} '
                "Add it to the table or rename the folder."
            )
        else:
            leaves[folder] = leaf
    raise_all(problems)
    return taxonomy, leaves
