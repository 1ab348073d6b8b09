"""The secret key of a checkout that was given none: made once, kept in a file."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


def secret_key(path: Path) -> str:
    """Return the key kept in `path`; make one first if there is none.

    Any number of processes may call this at once: all get the same key. Only the owner can read
    the file. Raises OSError where it can't be read or made.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # NamedTemporaryFile's mode is 0600. Link, don't rename: the first process to get there
        # wins, and nobody ever sees half a key.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name) as draft:
            draft.write(secrets.token_urlsafe(50))
            draft.flush()
            os.fsync(draft.fileno())
            with suppress(FileExistsError):
                os.link(draft.name, path)
    return path.read_text().strip()
