"""One log line at the start and one at the end of each model call. Never what was said in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Literal, TypeAlias

from ..engine import Infer, Middleware
from ..turns import Turn

logger = logging.getLogger(__name__)

CallOutcome: TypeAlias = Literal["completed", "cancelled", "failed"]


def timing(model: str = "") -> Middleware:
    """Logs each model call at level INFO, its fields in the record's `extra`.

    Both lines have `event`, `model`, `session_id`, `inference_id`, `turn_id` and `blocks`, the
    number of blocks by kind; the last also `outcome`, `duration_ms`, `new_blocks` and `error`, the
    name of what was raised.
    """

    def middleware(infer: Infer) -> Infer:
        async def timed(turn: Turn) -> Turn:
            began = time.monotonic()
            logger.info("model call started: %s", model, extra=_fields("started", model, turn))

            def ended(
                outcome: CallOutcome, answered: Turn = turn, error: BaseException | None = None
            ) -> None:
                duration_ms = round((time.monotonic() - began) * 1000)
                logger.info(
                    "model call %s: %s after %s ms",
                    outcome,
                    model,
                    duration_ms,
                    extra=_fields("finished", model, answered)
                    | {
                        "outcome": outcome,
                        "duration_ms": duration_ms,
                        "new_blocks": len(answered.blocks) - len(turn.blocks),
                        "error": None if error is None else type(error).__name__,
                    },
                )

            try:
                answered = await infer(turn)
            except asyncio.CancelledError as cancelled:
                ended("cancelled", error=cancelled)
                raise
            except BaseException as error:
                ended("failed", error=error)
                raise
            ended("completed", answered)
            return answered

        return timed

    return middleware


def _fields(event: str, model: str, turn: Turn) -> dict[str, object]:
    return {
        "event": f"model_call.{event}",
        "model": model,
        "session_id": turn.metadata.session_id,
        "inference_id": turn.metadata.inference_id,
        "turn_id": turn.id,
        "blocks": dict(Counter(str(block.__struct_config__.tag) for block in turn.blocks)),
    }
