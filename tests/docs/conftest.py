"""Examples run as in an app of their own: a folder to write to, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _state_of_its_own(settings, tmp_path: Path) -> None:
    settings.STATE_DIR = tmp_path
