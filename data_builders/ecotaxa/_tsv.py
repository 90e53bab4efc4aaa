"""Reads EcoTaxa's tables: tab-separated, quoted, with or without a line of types. Pure.

Names of columns are compared without regard to case. Which image files there are is not looked at.
"""

import codecs
import csv
import dataclasses
import datetime
import functools
import io
import math
import sys
from array import array
from collections.abc import Iterator

POSITION = ("object_lat", "object_lon", "object_depth_min", "object_depth_max")
TIME = "object_time_utc"
STATUSES = ("validated", "predicted", "dubious")
_TYPES = {"[t]", "[f]"}
_ANNOTATION = "object_annotation_"


class NotATable(Exception):
    """The file is none of EcoTaxa's tables; the argument says why."""


class UnreadableTable(Exception):
    """The file is one of EcoTaxa's tables, and not all of it can be read; the argument says why."""


@dataclasses.dataclass(slots=True)
class Row:
    """One image of one object.

    Attributes:
      object_id: unique in an export, but for the images of one object.
      image: path of the image, relative to the table.
      rank: of the image among those of its object.
      category: as it is shown; "" when it is not told.
      hierarchy: names from the root down to the category; empty when it is not told.
      status: validated, predicted or dubious; "" when it is not told, None in a table that tells
        none.
      group: the sample's id, or "".
      numbers: position, time in seconds since 1970 and, when asked for, numeric columns of the
        object, as `array("d")`.
      columns: their names, the same object for all rows of a table.
    """

    object_id: str
    image: str
    rank: int
    category: str
    hierarchy: tuple[str, ...]
    status: str | None
    group: str
    numbers: array
    columns: tuple[str, ...]


def read_rows(data: bytes, features: bool = False) -> Iterator[Row]:
    """Every row of a table.

    Args:
      data: the table's bytes.
      features: whether numeric columns of the objects are wanted beside position and time.

    Raises:
      NotATable: it has no header of EcoTaxa.
      UnreadableTable: a row cannot be read.
    """
    lines = csv.reader(io.StringIO(_decoded(data), newline=""), delimiter="\t", quotechar='"')
    try:
        header = [cell.strip().casefold() for cell in next(lines)]
    except (StopIteration, csv.Error) as error:
        raise NotATable("it is empty") from error
    identifier = next((name for name in ("object_id", "objid") if name in header), None)
    if identifier is None or "img_file_name" not in header:
        raise NotATable("needed are the columns object_id (or objid) and img_file_name")
    columns = _columns(header, None, features)
    try:
        for number, cells in enumerate(lines, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            if any("\n" in cell for cell in cells):
                raise UnreadableTable(
                    f"line {number} has a quotation mark that is not closed, or a line break "
                    "between two of them"
                )
            if number == 2 and {cell.strip() for cell in cells} <= _TYPES | {""}:
                numeric = {name for name, kind in zip(header, cells, strict=False)
                           if kind.strip() == "[f]"}  # fmt: skip
                columns = _columns(header, numeric, features)
                continue
            if len(cells) > len(header):
                problem = f"line {number} has {len(cells)} cells for {len(header)} columns"
                raise UnreadableTable(problem)
            named = dict.fromkeys(header, "")
            named |= zip(header, (cell.strip() for cell in cells), strict=False)
            yield _row(named, identifier, columns)
    except csv.Error as error:
        raise UnreadableTable(str(error)) from error


def _decoded(data: bytes) -> str:
    """Text in UTF-8, with a mark of it or not, in UTF-16 with one, or else in Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _columns(header: list[str], numeric: set[str] | None, features: bool) -> tuple[str, ...]:
    """The names of a row's numbers; `numeric` are those of numbers, where a line tells them."""
    names = dict.fromkeys((*POSITION, TIME))
    if features:
        others = {"object_date", "object_time", "object_id"}
        names |= dict.fromkeys(
            name
            for name in header
            if name.startswith("object_")
            and not name.startswith(_ANNOTATION)
            and name not in others
            and (numeric is None or name in numeric)
        )
    return tuple(names)


def _row(named: dict[str, str], identifier: str, columns: tuple[str, ...]) -> Row:
    rank, status = named.get("img_rank", ""), named.get(_ANNOTATION + "status")
    time = _seconds(named.get("object_date", ""), named.get("object_time", ""))
    # What many rows share is kept once: an export has hundreds of thousands.
    return Row(
        object_id=named[identifier],
        image=named.get("img_file_name", "").replace("\\", "/"),
        rank=int(rank) if rank.isdigit() else 0,
        category=sys.intern(named.get(_ANNOTATION + "category", "")),
        hierarchy=_hierarchy(named.get(_ANNOTATION + "hierarchy", "")),
        status=None if status is None else sys.intern(status.casefold()),
        group=sys.intern(named.get("sample_id", "")),
        numbers=array(
            "d", [time if name == TIME else _number(named.get(name, "")) for name in columns]
        ),
        columns=columns,
    )


@functools.lru_cache(maxsize=4096)
def _hierarchy(path: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in path.split(">") if part.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(date: str, time: str) -> float:
    """Seconds since 1970 of YYYYMMDD and HHMMSS; not a number when there is no date."""
    digits = "".join(character for character in time if character.isdigit())[:6]
    try:
        moment = datetime.datetime.strptime(date[:8] + digits.rjust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return math.nan
    return moment.replace(tzinfo=datetime.UTC).timestamp()
