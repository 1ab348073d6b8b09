"""Traces that hold secrets, on their way into the log."""

from __future__ import annotations

import logging


def log_masked(logger: logging.Logger, masked_trace: str, message: str, *args: object) -> None:
    """Logs an error whose trace was masked; a formatter shows it in the place of an exception's.

    `exc_info` would show the exception itself, and a message is one line.
    """
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, args, None)
    record.exc_text = masked_trace
    logger.handle(record)
