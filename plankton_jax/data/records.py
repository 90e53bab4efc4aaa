"""Reads one feature out of a serialised `tf.train.Example` without TensorFlow. Pure.

The general parsers build every feature of every record; a batch needs the image bytes alone. The
format is protobuf's wire format: Example { 1: Features { 1: map entry { 1: name, 2: Feature
{ 1: BytesList { 1: value } } } } }, each level a tag byte, a varint length and that many bytes.
"""

_FIRST, _SECOND = 0x0A, 0x12  # tags: field 1 or 2, length-delimited


def bytes_feature(record: bytes, name: bytes) -> bytes:
    """The first value of the bytes feature `name` (of less than 128 bytes) of a serialised
    `tf.train.Example`.

    Raises:
      ValueError: the record is damaged, or has no such feature.
    """
    prefix = bytes((_FIRST, len(name))) + name
    try:
        position, end = _enter(record, 0, _FIRST)
        if end != len(record):
            raise ValueError("record is truncated")
        while position < end:
            entry, position = _enter(record, position, _FIRST)
            if record.startswith(prefix, entry):
                feature, _ = _enter(record, entry + len(prefix), _SECOND)
                values, _ = _enter(record, feature, _FIRST)
                start, stop = _enter(record, values, _FIRST)
                if stop > position:
                    break
                return record[start:stop]
    except IndexError as error:
        raise ValueError("record is truncated") from error
    raise ValueError(f'record has no bytes feature "{name.decode()}"')


def _enter(record: bytes, position: int, tag: int) -> tuple[int, int]:
    """Start and end of the content of the length-delimited field at `position`."""
    if record[position] != tag:
        raise ValueError("record is not a serialised example")
    length = record[position + 1]
    position += 2
    if length & 0x80:
        length &= 0x7F
        shift = 7
        while True:
            byte = record[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                break
            shift += 7
    return position, position + length
