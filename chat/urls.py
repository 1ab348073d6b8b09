"""The addresses of PROTOCOL §5, and the pages."""

from django.urls import path

from . import debug, pages, scrape, views

urlpatterns = [
    path("", pages.home, name="home"),
    path("c/<str:conv_id>/", pages.conversation, name="conversation"),
    path("c/<str:conv_id>/export.<str:form>", pages.export, name="export"),
    path("chat", views.chat, name="chat"),
    path("chat/<str:profile>", views.chat, name="chat-profile"),
    path("api/chat/cancel", views.cancel, name="cancel"),
    path("api/chat/queue/remove", views.remove_queued, name="remove-queued"),
    path("api/chat/queue/run", views.run_queued, name="run-queued"),
    path("api/debug/step-mode", views.step_mode, name="step-mode"),
    path("api/debug/continue", views.decide, name="decide"),
    path("api/debug/conversations", debug.conversations, name="debug-conversations"),
    path("api/debug/conversations/<str:conv_id>", debug.conversation, name="debug-conversation"),
    path("api/debug/events/<str:conv_id>", debug.events, name="debug-events"),
    path("api/debug/turns", debug.turns, name="debug-turns"),
    path("api/chat/profiles", views.profiles, name="profiles"),
    path("api/chat/profile", views.profile, name="profile"),
    path("api/timeline", views.timeline, name="timeline"),
    path("api/conversations", views.conversations, name="conversations"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", scrape.metrics, name="metrics"),
]
