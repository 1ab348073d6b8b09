"""Fields that newer code has added to what is stored: older code keeps what it does not know."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

Fields = Mapping[str, msgspec.Raw]


def unknown_fields(raw: bytes, known: type[msgspec.Struct]) -> Fields:
    """The fields of a JSON object that the struct does not have."""
    names = {field.encode_name for field in msgspec.structs.fields(known)}
    found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return {name: value.copy() for name, value in found.items() if name not in names}


def with_fields(raw: bytes, fields: Fields) -> bytes:
    """The JSON object with those fields in it."""
    if not fields:
        return raw
    found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**found, **fields})
