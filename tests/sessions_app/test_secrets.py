"""Which texts of settings are secrets."""

from __future__ import annotations

from sessions_app.secrets import secrets_in


def test_secrets_are_found_by_their_names_and_in_addresses():
    settings = {
        "OPENAI_API_KEY": "an-api-key-1",
        "METRICS_TOKEN": "a-metrics-token-2",
        "DATABASES": {"default": {"PASSWORD": "a-password-3", "NAME": "the-database"}},
        "SERVERS": [
            {"headers": {"Authorization": "Bearer a-bearer-token-4", "Accept": "text/html"}}
        ],
        "CHANNEL_LAYERS": {"hosts": ["redis://:a-p%40ssword-5@localhost:6379/0", ("localhost", 1)]},
        "SECRETS": {"of": ["a-deep-secret-6"]},
        "QUEUE_LIMIT": 16,
        "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1",
    }
    assert secrets_in(settings) == {
        "an-api-key-1",
        "a-metrics-token-2",
        "a-password-3",
        "Bearer a-bearer-token-4",
        "a-bearer-token-4",
        "a-p@ssword-5",
        "a-deep-secret-6",
    }


def test_what_may_be_an_ordinary_word_is_none():
    settings = {"DATABASE": {"PASSWORD": "password"}, "API_KEY": "", "TOKEN": None}
    assert secrets_in(settings) == set()
