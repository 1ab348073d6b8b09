"""From a session's profile to the runner of its inferences."""

from __future__ import annotations

from .inference.engine import Closing, Engine
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

    def prepare(self, model: str) -> None:
        """Builds the model's engine now: a provider's library takes seconds to import."""
        self._engine(model)

    def build(self, session: Session) -> InferenceRunner:
        profile = session.profile
        return InferenceRunner(
            self._engine(profile.model),
            middlewares=[system_prompt(profile.system_prompt)],
            timeout=self._timeout,
            cancel_grace=self._grace,
        )

    async def aclose(self) -> None:
        """Closes the connections to the models' services. No inference may be running."""
        for engine in self._engines.values():
            if isinstance(engine, Closing):
                await engine.aclose()

    def _engine(self, model: str) -> Engine:
        engine = self._engines.get(model)
        if engine is None:
            engine = self._engines[model] = build_engine(model, self._credentials)
        return engine
