"""The unmanaged model: permissions without a table, and nothing to migrate."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection


@pytest.mark.django_db
def test_migrating_makes_the_five_permissions_and_no_table():
    rows = Permission.objects.filter(content_type__app_label="sessions_app")
    assert set(rows.values_list("codename", flat=True)) == {
        *(f"{action}_livesession" for action in ("view", "transcript", "cancel", "step")),
        "view_metrics",
    }
    assert not [name for name in connection.introspection.table_names() if "live" in name]


@pytest.mark.django_db
def test_the_model_asks_for_no_migration():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
