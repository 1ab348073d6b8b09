"""A fold of frames written from PROTOCOL §6 alone, to hold the server's against."""

from __future__ import annotations

from typing import Any

from tests.client import Frame

Entities = list[dict[str, Any]]

PROPS = ("role", "content", "streaming", "status", "metadata", "error", "usage")


def fold(entities: Entities, frames: list[Frame]) -> Entities:
    """The entities after `frames`: of each its id, kind, places and the protocol's props."""
    folded = {entity["id"]: _plain(entity) for entity in entities}
    for frame in frames:
        kind, props = _step(frame, folded.get(frame["id"]))
        if not kind:
            continue
        entity = folded.setdefault(
            frame["id"],
            {"id": frame["id"], "kind": kind, "createdSeq": frame["seq"], "props": {}},
        )
        entity["updatedSeq"] = frame["seq"]
        entity["props"].update(props)
    return list(folded.values())


def plain(entities: Entities) -> Entities:
    """Entities as the server gave them, without what no frame tells: times and extra props."""
    return [_plain(entity) for entity in entities]


def _plain(entity: dict[str, Any]) -> dict[str, Any]:
    kept = {name: entity[name] for name in ("id", "kind", "createdSeq", "updatedSeq")}
    props = {name: entity["props"][name] for name in PROPS if name in entity["props"]}
    return {**kept, "props": props}


def _step(frame: Frame, before: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The entity's kind and the props that this frame changes."""
    data = frame["data"]
    match frame["type"].split("."):
        case ["chat", "message"]:
            props = {"role": data["role"], "content": data["content"], "streaming": False}
            return "message", props
        case ["inference", "started"]:
            return "inference", {"status": "running"}
        case ["inference", "finished"]:
            return "inference", {
                name: data[name] for name in ("status", "error", "usage") if name in data
            }
        case ["llm", *_, "start"]:
            return "message", {
                "role": data["role"],
                "content": "",
                "streaming": True,
                "status": "streaming",
                "metadata": {"model": data["model"]},
            }
        case ["llm", *_, "delta"]:
            assert before is not None, frame
            return "message", {"content": before["props"]["content"] + data["delta"]}
        case ["llm", *_, "final"]:
            return "message", {
                "content": data["text"],
                "streaming": False,
                "status": data["status"],
                "metadata": frame["metadata"],
            }
    return "", {}
