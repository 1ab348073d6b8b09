"""The server's entry, and the one place where sessions meet transport."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webchat_project.settings")

from io import StringIO

from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.core.management import call_command

django_application = get_asgi_application()
logging.captureWarnings(True)  # they too are lines of the log
# Servers started by hand run no system checks; a wrong setting must not wait for the first prompt.
call_command("check", stdout=StringIO())

# ruff: noqa: E402 - what follows imports models, and needs the line above
from prometheus_client import CollectorRegistry, ProcessCollector

from chat.app_kinds import default_kinds
from chat.apps import install
from chat.body import BodyLimit
from chat.conf import chat_settings
from chat.guard import Guard
from chat.hub import Hub
from chat.identities import Identities
from chat.reread import identities, reread
from chat.routing import websocket_application
from chat.streams import Streams
from sessions_app.conf import session_builder, session_settings
from sessions_app.inference.engine import Engine
from sessions_app.inference.tools import Tool
from sessions_app.manager import SessionManager
from sessions_app.metrics import SessionCollector, SessionMetrics
from sessions_app.observing import EventObserver, log_inference
from sessions_app.profiles import Profiles

from .access_log import AccessLog
from .cluster import Cluster
from .inline import begin_without_a_thread
from .lifecycle import Lifecycle


def build_hub(*, engine: Engine | None = None, tools: Iterable[Tool] = ()) -> Hub:
    """Sessions and streams for one process and one event loop, as the settings say.

    `engine` and `tools` are a test's, see `webchat_project.testing`.
    """
    chat, sessions = chat_settings(), session_settings()
    layer = get_channel_layer()
    assert layer is not None, "settings.CHANNEL_LAYERS has no default layer"
    cluster = Cluster(chat, sessions, layer=layer) if chat.redis_url else None
    streams = Streams(
        window=chat.window(),
        logs=None if cluster is None else cluster.logs,
        pace=chat.pace(),
        kinds=default_kinds,
    )
    profiles = Profiles(sessions.resolved_profiles())
    builder = session_builder(sessions, engine=engine, tools=tools)
    for profile in profiles:
        builder.prepare(profile.model)
    observers: list[EventObserver] = [log_inference]
    if sessions.tracing:
        from sessions_app.tracing import InferenceSpans

        from .tracing import tracer

        observers.append(InferenceSpans(tracer(), content=sessions.tracing_content))
    allowed_tools = {*builder.tools.names, *(name for each in profiles for name in each.tools)}
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    manager = SessionManager(
        profiles=profiles,
        builder=builder,
        check=builder.check,
        streams=streams,
        tools=builder.tools,
        limits=sessions.limits(),
        turn_store=sessions.load_turn_store(),
        turn_persister=sessions.load_turn_persister(),
        observers=[*observers, SessionMetrics(metrics, tools=allowed_tools)],
        on_idle=None if cluster is None else cluster.sessions.owned.look,
    )
    if cluster is not None:
        cluster.bind(manager, streams)
        metrics.register(cluster.collector)
    shared = manager if cluster is None else cluster.sessions
    metrics.register(SessionCollector(manager.statistics))
    guard = Guard(
        layer=layer,
        identities=identities,
        find=shared.find,
        every=chat.access_check_every,
    )
    return Hub(
        sessions=shared,
        streams=streams,
        guard=guard,
        identities=Identities(reread),
        settings=chat,
        metrics=metrics,
        limits=None if cluster is None else cluster.limits,
        shared=cluster,
    )


begin_without_a_thread()
hub = build_hub()
install(hub)
application = Lifecycle(
    AccessLog(
        ProtocolTypeRouter(
            {
                "http": BodyLimit(django_application, max_bytes=chat_settings().body_max_bytes),
                "websocket": websocket_application,
            }
        )
    ),
    start=hub.start,
    close=hub.aclose,
)
