"""What Django's admin and permissions know a live session by. There is no table behind it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class LiveSession(models.Model):
    """A session in memory: this model has permissions and an admin page, and no rows.

    `view` shows everything but the words: no prompt, answer, tool argument, result or title. Those
    are `transcript`. `cancel` ends what runs, drops sockets and unloads; `step` decides pauses.
    `view_metrics` is for the numbers of the whole process.
    """

    conv_id = models.CharField(primary_key=True, max_length=128)

    class Meta:
        managed = False
        verbose_name = "live session"
        verbose_name_plural = "live sessions"
        default_permissions = ()
        permissions: ClassVar = [
            ("view_livesession", "Can see live sessions, without their words"),
            ("transcript_livesession", "Can read the words of any conversation"),
            ("cancel_livesession", "Can cancel inferences, drop sockets and evict sessions"),
            ("step_livesession", "Can switch step mode and decide pauses"),
            ("view_metrics", "Can read the metrics"),
        ]

    def __str__(self) -> str:
        return self.conv_id
