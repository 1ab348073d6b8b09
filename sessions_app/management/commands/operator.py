"""The first account of a new checkout."""

import secrets
from argparse import ArgumentParser

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError, transaction


class Command(BaseCommand):
    """Makes a superuser with a random password if there is none, and says the password once.

    With a superuser there, does and says nothing. Safe to run from several processes at once: the
    user name is unique, so one of them makes the account, and only that one speaks.
    """

    help = "Make the first superuser, if there is none, and print the password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", default="operator", help="Default: operator.")

    def handle(self, *, username: str, **_options: object) -> None:
        superusers = User.objects.filter(is_superuser=True)
        if superusers.exists():
            return
        password = secrets.token_urlsafe(12)
        try:
            with transaction.atomic():
                User.objects.create_superuser(username, password=password)
        except IntegrityError as error:
            if superusers.exists():
                return
            raise CommandError(
                f"the user name {username!r} belongs to somebody who is no superuser; "
                "choose another: manage.py operator --username NAME"
            ) from error
        self.stdout.write(
            f"New superuser (shown once): username {username}, password {password}\n"
            f"To change it: manage.py changepassword {username}"
        )
