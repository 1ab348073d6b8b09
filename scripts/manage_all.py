"""Runs several of Django's commands, an argument each, in one process: a start takes seconds."""

import os
import shlex
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webchat_project.settings")
for command in sys.argv[1:]:
    execute_from_command_line(["manage.py", *shlex.split(command)])
