"""The environment that programs under test inherit."""

from __future__ import annotations

import os


def inherited() -> dict[str, str]:
    """Ours, without what would give them a deployment's database, secrets, Redis or model."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("DEBUG", "DATABASE_URL", "SECRET_KEY", "REDIS_URL")
        and not name.endswith("_API_KEY")
    }
