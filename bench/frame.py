"""The frame that all servers under test send: as many bytes as one of ours."""

from __future__ import annotations

from uuid import UUID

IDS = [str(UUID(int=number, version=4)) for number in range(3)]

END = '{"sem":true,"event":{"type":"inference.finished"}}'
"""What the others send last; ours ends so by itself."""


def frame(number: int, piece: str) -> str:
    """One delta as the protocol writes it, 214 bytes for an ordinary token."""
    message, inference, turn = IDS
    return (
        f'{{"sem":true,"event":{{"seq":{number},"type":"llm.delta","id":"{message}",'
        f'"inference_id":"{inference}","turn_id":"{turn}",'
        f'"data":{{"delta":"{piece}","offset":{number * len(piece)}}}}}}}'
    )
