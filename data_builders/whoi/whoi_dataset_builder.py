"""WHOI-Plankton from its yearly archives; see README.md beside this file.

Reads the archives, which it fetches where they are not given; writes nothing but what its base
class writes.
"""

import pathlib

from data_builders._download import Archive
from data_builders._entries import SETTING, Entry
from data_builders._published import PublishedBuilder
from data_builders.base import Record
from plankton_jax.errors import UserError

HANDLES = {
    2006: 7342, 2007: 7343, 2008: 7345, 2009: 7346, 2010: 7348,
    2011: 7347, 2012: 7344, 2013: 7349, 2014: 7350,
}  # fmt: skip
_URL = (
    "https://darchive.mblwhoilibrary.org/bitstream/handle/1912/{handle}/{year}.zip"
    "?sequence=1&isAllowed=y"
)


class Builder(PublishedBuilder):
    """Nine years of images of an Imaging FlowCytobot, merged by class."""

    licence = "unconfirmed; published for research by WHOI"
    archives = tuple(
        Archive(f"{year}.zip", _URL.format(handle=handle, year=year))
        for year, handle in HANDLES.items()
    )

    def by_hand(self) -> str:
        return "Needed: a folder with 2006.zip to 2014.zip, some of them, or one of them."

    def given(self) -> list[pathlib.Path]:
        """Every yearly archive in the folder, or the folders of years in it."""
        source = pathlib.Path(self.options.source or "")
        archives = sorted(source.glob("20??.zip"))
        years = {path.stem for path in archives}
        unpacked = sorted(path.name for path in source.glob("20??") if path.name not in years)
        if archives and unpacked:
            raise UserError(
                f"{SETTING} {source}: has archives of {', '.join(sorted(years))} and folders of "
                f"{', '.join(unpacked)}; read are either archives or folders. Put the folders "
                "elsewhere, or their archives here."
            )
        return archives or [source]

    def belongs(self, entry: Entry) -> bool:
        return len(entry.path.split("/")) >= 3

    def class_and_id(self, entry: Entry) -> tuple[str, str]:
        year, name, file = entry.path.split("/")[-3:]
        return name, f"{year}/{name}/{file}"

    def complete(self, record: Record, entry: Entry) -> Record:
        """The group is the year and the bin, a sample of some minutes, which the id tells."""
        year, _, file = record.id.split("/")
        record.group = f"{year}/{file.rpartition('.')[0].rpartition('_')[0]}"
        return record
