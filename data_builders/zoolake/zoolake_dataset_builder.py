"""ZooLake from its archive; see README.md beside this file.

Reads the archive, which it fetches where it is not given; writes nothing but what its base class
writes.
"""

from data_builders._download import Archive
from data_builders._entries import (
    SETTING,
    CorruptMemberError,
    Entry,
    Source,
    read_table_file,
)
from data_builders._published import PublishedBuilder
from data_builders.base import Record
from plankton_jax.errors import UserError

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_FOLDER = "training_data"


class Builder(PublishedBuilder):
    """17,942 images of lake plankton in 35 classes, with an official split."""

    licence = "CC0-1.0"
    archives = (
        Archive(
            "data.zip",
            "https://opendata.eawag.ch/dataset/52b6ba86-5ecb-448c-8c01-eec7cb209dc7/resource/"
            "1cc785fa-36c2-447d-bb11-92ce1d1f3f2d/download/data.zip",
        ),
    )

    def by_hand(self) -> str:
        return "Needed: data.zip as it was published, or the folder that it unpacks to."

    def belongs(self, entry: Entry) -> bool:
        return f"/{_FOLDER}/" in entry.path

    def class_and_id(self, entry: Entry) -> tuple[str, str]:
        name, _, file = entry.path.split("/")[-3:]
        return name, f"{name}/{_FOLDER}/{file}"

    def look_at(self, source: Source) -> None:
        """Reads the three lists of the official split."""
        self._split = {}
        for part, ours in _SPLITS.items():
            name = f"{part}_filenames.txt"
            for entry in source.entries:
                if entry.path.rpartition("/")[2] == name:
                    try:
                        text = read_table_file(source, entry).decode()
                    except (CorruptMemberError, OSError, UnicodeDecodeError) as error:
                        raise UserError(
                            f"{SETTING} {source.path}: {entry.path}, a list of the official split, "
                            f"cannot be read ({error}). {self.by_hand()}"
                        ) from error
                    self._note(text, ours, name)

    def complete(self, record: Record, entry: Entry) -> Record:
        record.split = self._split.get(record.id, "")
        return record

    def _note(self, text: str, part: str, name: str) -> None:
        """Every line is a path, of which the last three parts are the id."""
        for line in text.splitlines():
            identifier = "/".join(line.strip().replace("\\", "/").split("/")[-3:])
            if identifier and self._split.setdefault(identifier, part) != part:
                raise UserError(
                    f"{SETTING}: {name} names {identifier}, which another list of the official "
                    "split has too. Give the archive as it was published."
                )
