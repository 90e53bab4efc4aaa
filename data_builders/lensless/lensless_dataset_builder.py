"""The lensless microscope's plankton; see README.md beside this file.

Reads the archive or folder; writes nothing but what its base class writes.
"""

from data_builders._entries import Entry
from data_builders._published import PublishedBuilder
from data_builders.base import Record

_SPLITS = {"TRAIN_IMAGE": "train", "TEST_IMAGE": "test"}


class Builder(PublishedBuilder):
    """6,400 images of 10 classes, with an official test part."""

    licence = "CC-BY-4.0"

    def by_hand(self) -> str:
        return (
            "Needed: lensless_dataset, the folder or an archive of it, with TRAIN_IMAGE and "
            "TEST_IMAGE."
        )

    def belongs(self, entry: Entry) -> bool:
        return entry.path.split("/")[-3:-2] in [[name] for name in _SPLITS]

    def class_and_id(self, entry: Entry) -> tuple[str, str]:
        part, name, file = entry.path.split("/")[-3:]
        return name, f"{part}/{name}/{file}"

    def complete(self, record: Record, entry: Entry) -> Record:
        record.split = _SPLITS[record.id.split("/")[0]]
        return record
