"""The National Data Science Bowl of 2015; see README.md beside this file.

Reads the archives or folders; writes nothing but what its base class writes.
"""

import pathlib

from data_builders._entries import SETTING, Entry
from data_builders._published import PublishedBuilder
from plankton_jax.errors import UserError


class Builder(PublishedBuilder):
    """30,336 images of 121 classes; variant "all" has the competition's test images as well."""

    licence = "unsettled; published for a competition"
    variants = ("train", "all")

    def by_hand(self) -> str:
        return "Needed: the competition's train.zip, or a folder with it (and with test.zip)."

    def given(self) -> list[pathlib.Path]:
        source = pathlib.Path(self.options.source or "")
        names = ["train", "test"] if self.options.variant == "all" else ["train"]
        found = {name: path for name in names for path in (source / name, source / f"{name}.zip")
                 if path.exists()}  # fmt: skip
        if found and len(found) < len(names):
            raise UserError(
                f"{SETTING} {source}: has no {next(n for n in names if n not in found)}.zip, which "
                "config.data.dataset=ndsb/all takes the images without a label from. Put it beside "
                "the other, or set config.data.dataset=ndsb."
            )
        return [*found.values()] or [source]

    def belongs(self, entry: Entry) -> bool:
        """Images of the competition's test part have no class folder."""
        return self._is_labelled(entry) or self.options.variant == "all"

    def class_and_id(self, entry: Entry) -> tuple[str, str]:
        if self._is_labelled(entry):
            return super().class_and_id(entry)
        return "", f"test/{entry.path.rpartition('/')[2]}"

    def _is_labelled(self, entry: Entry) -> bool:
        folder = entry.path.rpartition("/")[0].rpartition("/")[2]
        return folder not in ("test", "")
