"""Settings of the project. Everything a deployment changes comes from the environment."""

from pathlib import Path

import environ
from csp.constants import NONE, SELF

from cluster.connect import layer_host
from sessions_app.secrets import secrets_in

from .logs import logging_config
from .secret import secret_key

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = Path(env.str("WEBCHAT_STATE_DIR", default="") or BASE_DIR / ".webchat")

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or secret_key(STATE_DIR / "secret_key")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
if env.bool("TRUST_X_FORWARDED_PROTO", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "sessions_app",
    "chat",
    "webchat_project",
]

MIDDLEWARE = [
    "webchat_project.inline.SecurityMiddleware",
    "webchat_project.policy.PolicyMiddleware",
    "webchat_project.inline.XFrameOptionsMiddleware",
    "chat.middleware.ProtocolErrorsMiddleware",
    "webchat_project.static.StaticFilesMiddleware",
    "webchat_project.inline.SessionMiddleware",
    "webchat_project.inline.CommonMiddleware",
    "webchat_project.inline.CsrfViewMiddleware",
    "webchat_project.inline.AuthenticationMiddleware",
    "webchat_project.inline.MessageMiddleware",
]

ROOT_URLCONF = "webchat_project.urls"
ASGI_APPLICATION = "webchat_project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Accounts and log-in sessions only: no prompt, answer or frame ever reaches a database.
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{STATE_DIR / 'db.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

# Empty: one process, everything in its memory. Else any number of processes share that Redis.
REDIS_URL = env.str("REDIS_URL", default="")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [layer_host(REDIS_URL)]},
    }
    if REDIS_URL
    else {"BACKEND": "chat.layer.ProcessChannelLayer"}
}

WEBCHAT = {
    "MODEL": env.str("WEBCHAT_MODEL", default="demo"),
    "OPENAI_BASE_URL": env.str("OPENAI_BASE_URL", default=""),
    "OPENAI_API_KEY": env.str("OPENAI_API_KEY", default=""),
    "ANTHROPIC_API_KEY": env.str("ANTHROPIC_API_KEY", default=""),
    "GEMINI_API_KEY": env.str("GEMINI_API_KEY", default=""),
    "REDIS_URL": REDIS_URL,
    "LEASE_SECONDS": env.float("WEBCHAT_LEASE_SECONDS", default=9.0),
    "DRAIN_TIMEOUT": env.float("WEBCHAT_DRAIN_TIMEOUT", default=30.0),
    "PROMPTS_PER_USER": env.int("WEBCHAT_PROMPTS_PER_USER", default=60),
    "PROMPTS_PER_ADDRESS": env.int("WEBCHAT_PROMPTS_PER_ADDRESS", default=600),
    "SOCKETS_PER_USER": env.int("WEBCHAT_SOCKETS_PER_USER", default=20),
    "SOCKETS_PER_ADDRESS": env.int("WEBCHAT_SOCKETS_PER_ADDRESS", default=200),
    "SOCKETS_PER_PROCESS": env.int("WEBCHAT_SOCKETS_PER_PROCESS", default=10_000),
    "TRUSTED_PROXIES": env.int("WEBCHAT_TRUSTED_PROXIES", default=0),
    "LOGIN_REQUIRED": env.bool("WEBCHAT_LOGIN_REQUIRED", default=False),
    "METRICS": env.bool("WEBCHAT_METRICS", default=False),
    "METRICS_TOKEN": env.str("WEBCHAT_METRICS_TOKEN", default=""),
    "TRACING": env.bool("WEBCHAT_TRACING", default=False),
    "TRACING_CONTENT": env.bool("WEBCHAT_TRACING_CONTENT", default=False),
    "PROFILES": [
        {
            "slug": "default",
            "title": "Assistant",
            "system_prompt": "You are a helpful assistant. Answer in Markdown, briefly and truly.",
            "tools": ["calc", "current_time"],
        },
        {
            "slug": "agent",
            "title": "Agent",
            "system_prompt": (
                "You are a careful agent. Think before you act, say what you are about to do, "
                "and answer in Markdown."
            ),
            "tools": ["calc", "current_time", "my_account", "demo_send_note", "demo_task"],
            "middlewares": [
                {
                    "name": "agent-mode",
                    "config": {
                        "modes": {
                            "plan": "Plan: say what should be done, and do nothing yet.",
                            "act": "Act: do what was agreed, step by step.",
                        },
                        "default": "plan",
                    },
                }
            ],
        },
    ],
}

# A body over this is answered with 413; the wire form is made in chat.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = STATE_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "webchat_project.static.ModuleManifestStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG

MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "webchat_project.inline.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("SECURE_COOKIES", default=False)
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=False)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=0)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "base-uri": [NONE],
        "object-src": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["webchat-entities"],
    },
}

TEST_RUNNER = "webchat_project.runner.PytestRunner"

LOG_LEVEL = env.str("LOG_LEVEL", default="").upper() or "INFO"
LOG_FORMAT = env.str("LOG_FORMAT", default="") or "console"
LOGGING = logging_config(
    level=LOG_LEVEL,
    form=LOG_FORMAT,
    secrets=secrets_in([{"SECRET_KEY": SECRET_KEY}, DATABASES, CHANNEL_LAYERS, WEBCHAT]),
)
