"""What may go wrong between a terminal and a server, each as a sentence for who typed.

RemoteError              it can't be done; the sentence says what to do about it
├── UnknownAccount       name another with --user
├── Unreachable          nothing, or nothing of ours, answers at that address
├── NotThere             the server has no such thing for this account
├── Refusal              the server said no; the sentence is its own
└── Ended                the server closed the socket for good
"""

from __future__ import annotations

from sessions_app.inference.errors import WebchatError


class RemoteError(WebchatError):
    code = "remote"


class UnknownAccount(RemoteError):
    code = "unknown_account"


class Unreachable(RemoteError):
    code = "unreachable"


class NotThere(RemoteError):
    code = "not_there"


class Refusal(RemoteError):
    code = "refusal"


class Ended(RemoteError):
    code = "ended"
