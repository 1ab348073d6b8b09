"""What the tests of the transport share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def plain_static(settings, tmp_path: Path) -> None:
    """Pages can be rendered in this process, where no static files were collected."""
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
