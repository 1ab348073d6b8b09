"""A conversation at a terminal: what `manage.py chat` is made of."""

from .lines import Lines
from .screen import Screen
from .talk import Talk

__all__ = ["Lines", "Screen", "Talk"]
