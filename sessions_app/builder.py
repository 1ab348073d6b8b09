"""From a session's profile to the runner of its inferences."""

from __future__ import annotations

from .inference.engine import Engine
from .inference.engines.catalog import Credentials, build_engine
from .inference.middleware import system_prompt
from .inference.runner import InferenceRunner
from .session import Session


class ProfileEngineBuilder:
    """Builds runners from profiles. Engines of the same model are shared: they keep no state."""

    def __init__(
        self, credentials: Credentials, *, inference_timeout: float, cancel_grace: float
    ) -> None:
        self._credentials = credentials
        self._timeout = inference_timeout
        self._grace = cancel_grace
        self._engines: dict[str, Engine] = {}

    def build(self, session: Session) -> InferenceRunner:
        profile = session.profile
        engine = self._engines.get(profile.model)
        if engine is None:
            engine = self._engines[profile.model] = build_engine(profile.model, self._credentials)
        return InferenceRunner(
            engine,
            middlewares=[system_prompt(profile.system_prompt)],
            timeout=self._timeout,
            cancel_grace=self._grace,
        )
