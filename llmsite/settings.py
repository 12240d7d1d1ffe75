"""Settings, all of them: defaults that run at once, the environment for the rest.

Every variable is described in docs/configuration.md; a test says so.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from zoneinfo import available_timezones

from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from llmsite import cross_origin
from llmsite.databases import POOL, database, sqlite_url
from llmsite.environment import Environment, kept_secret_key, made_private

BASE_DIR = Path(__file__).resolve().parent.parent

env = Environment()

# Where the service keeps its own files: the default database, the secret key.
DATA_DIR = Path(env.path("LLMSITE_DATA") or BASE_DIR / "var")
made_private(DATA_DIR, "LLMSITE_DATA")  # every prompt is in there

SECRET_KEY = env.str("SECRET_KEY", default="") or kept_secret_key(DATA_DIR / "secret_key")
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.sites("CSRF_TRUSTED_ORIGINS")
# Pages of other origins that may call the API with a key: browsers ask for leave first.
LLMSITE_CORS_ORIGINS = env.origins("LLMSITE_CORS_ORIGINS")
CORS_ALLOW_ALL_ORIGINS = LLMSITE_CORS_ORIGINS == ["*"]
CORS_ALLOWED_ORIGINS = [] if CORS_ALLOW_ALL_ORIGINS else LLMSITE_CORS_ORIGINS
CORS_URLS_REGEX = cross_origin.PATHS
CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS = cross_origin.SENT, cross_origin.READ

# The model. See modelhost.types.ModelSpec.
DTYPES = ["auto", "fp32", "fp16", "bf16", "float32", "float16", "bfloat16"]  # torch's names as well
LLMSITE_MODEL = env.str("LLMSITE_MODEL", default="") or "demo"
LLMSITE_REVISION = env.str("LLMSITE_REVISION", default="") or None
LLMSITE_ADAPTER = env.path("LLMSITE_ADAPTER") or None
LLMSITE_DEVICE = env.str("LLMSITE_DEVICE", default="") or "auto"
LLMSITE_DTYPE = env.choice("LLMSITE_DTYPE", DTYPES, default="auto")
LLMSITE_QUANTIZE = env.choice("LLMSITE_QUANTIZE", ["", "int8", "int4"], default="")
LLMSITE_CACHE = env.path("LLMSITE_CACHE") or None
LLMSITE_CACHE_TOKENS = env.count("LLMSITE_CACHE_TOKENS", default=None)
# `owner`: prompts of one user that begin alike compute that beginning once. `off`: nobody's.
LLMSITE_PREFIX_SHARING = env.choice("LLMSITE_PREFIX_SHARING", ["owner", "off"], default="owner")
# `on`: on CPUs few streams draft what repeats, from the answer and its owner's earlier ones.
LLMSITE_SPECULATION = env.choice("LLMSITE_SPECULATION", ["on", "off"], default="on")
# Seconds without a step after which an engine that has work is given up, and the process with it.
LLMSITE_ENGINE_PATIENCE = env.float("LLMSITE_ENGINE_PATIENCE", default=120.0)
# How much is taken in at once: generations, and the tokens of their prompts; beyond it 429.
LLMSITE_MAX_REQUESTS = env.int("LLMSITE_MAX_REQUESTS", default=256)
LLMSITE_MAX_QUEUED_TOKENS = env.int("LLMSITE_MAX_QUEUED_TOKENS", default=500_000)
LLMSITE_MAX_REQUESTS_PER_CALLER = env.int("LLMSITE_MAX_REQUESTS_PER_CALLER", default=128)
LLMSITE_MAX_TOKENS_PER_CALLER = env.int("LLMSITE_MAX_TOKENS_PER_CALLER", default=250_000)
# How many clients may wait for an answer at once, streams above all; beyond it 429.
LLMSITE_MAX_STREAMS = env.int("LLMSITE_MAX_STREAMS", default=4096)
LLMSITE_MAX_STREAMS_PER_CALLER = env.int("LLMSITE_MAX_STREAMS_PER_CALLER", default=2048)
# How many exports and searches of one caller, each of which may read a whole log.
LLMSITE_MAX_SCANS_PER_CALLER = env.int("LLMSITE_MAX_SCANS_PER_CALLER", default=4)
# How many pieces of text all streams together send in a second; beyond it a stream's are joined.
LLMSITE_EVENTS_PER_SECOND = env.float("LLMSITE_EVENTS_PER_SECOND", default=500.0)
# What is answered when a request does not say.
LLMSITE_SYSTEM = env.str("LLMSITE_SYSTEM", default="")
LLMSITE_TEMPERATURE = env.float("LLMSITE_TEMPERATURE", default=0.0)
LLMSITE_TOP_P = env.float("LLMSITE_TOP_P", default=1.0)
# Other names that /v1 accepts for the served model, for clients that cannot be changed.
LLMSITE_MODEL_ALIASES = env.list("LLMSITE_MODEL_ALIASES", default=[])
# The largest request body in bytes, and the seconds that a client may take to send it.
LLMSITE_MAX_BODY = env.int("LLMSITE_MAX_BODY", default=1 << 20)
LLMSITE_BODY_SECONDS = env.float("LLMSITE_BODY_SECONDS", default=30.0)
# Bytes on the disk of a SQLite database that must be free for something new to be taken in.
LLMSITE_DISK_RESERVE = env.int("LLMSITE_DISK_RESERVE", default=200_000_000)
# How long running answers may go on once the process shall end; then they are suspended.
LLMSITE_DRAIN_SECONDS = env.seconds("LLMSITE_DRAIN_SECONDS", default=10.0)

INSTALLED_APPS = [
    "daphne",
    "chat",  # before unfold: one of its templates is replaced
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "corsheaders",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "corsheaders.middleware.CorsMiddleware",  # the first one: it answers who asks for leave
    "django.middleware.security.SecurityMiddleware",
    "llmsite.static.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "llmsite.slashes.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "chat.outages.Outages",
    "axes.middleware.AxesMiddleware",  # the last one: it answers for who is locked out
]

ROOT_URLCONF = "llmsite.urls"
ASGI_APPLICATION = "llmsite.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

LLMSITE_DATABASE_POOL = env.count("LLMSITE_DATABASE_POOL", default=POOL)
DATABASES = {
    "default": database(
        env.str("DATABASE_URL", default="") or sqlite_url(DATA_DIR / "llmsite.sqlite3"),
        pool=LLMSITE_DATABASE_POOL,
        # Tests use several threads, which an in-memory database would not share.
        test_file=DATA_DIR / "test.sqlite3",
    )
}

SERIALIZATION_MODULES = {"json": "llmsite.dumps.json", "jsonl": "llmsite.dumps.jsonl"}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Wrong passwords are counted in the database, over all processes, for a name and an address: nobody
# can lock another one out from elsewhere. Behind proxies all addresses are the last proxy's, unless
# their number is known: a client may send an X-Forwarded-For of its own.
LLMSITE_PROXIES = env.int("LLMSITE_PROXIES", default=0)
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_FAILURE_LIMIT = env.count("LLMSITE_LOGIN_FAILURES", default=10)
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "chat.access.addresses.client_address"
AXES_LOCKOUT_CALLABLE = "chat.views.log_in.locked_out"
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True  # who logged in is Django's `last_login`
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "page"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en-us"
TIME_ZONE = env.str("TIME_ZONE", default="") or "UTC"
if TIME_ZONE not in available_timezones():
    raise ImproperlyConfigured(f"TIME_ZONE is {TIME_ZONE!r}; a name as Europe/Berlin is needed.")
USE_I18N = True
USE_TZ = True
FORMAT_MODULE_PATH = "llmsite.formats"

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # straight from the packages: no collectstatic to forget
WHITENOISE_MAX_AGE = 3600

# The body gate in front of Django is the limit; Django must not refuse earlier in another shape.
DATA_UPLOAD_MAX_MEMORY_SIZE = LLMSITE_MAX_BODY + 1

CSRF_FAILURE_VIEW = "chat.handlers.outdated"
SESSION_ENGINE = "llmsite.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"

# TLS ends at a proxy in front, which says so in X-Forwarded-Proto and lets nobody else say it.
LLMSITE_HTTPS = env.bool("LLMSITE_HTTPS", default=False)
if LLMSITE_HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^metrics$"]  # Prometheus asks each process, behind the proxy
    SECURE_HSTS_SECONDS = 30 * 24 * 3600
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # Other names below this one, and browsers' lists, are not ours to decide about.
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

SECURE_CONTENT_TYPE_NOSNIFF = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "chat.access.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["chat.wire.parsers.StorableJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "chat.wire.negotiation.JSONUnlessStreaming",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "chat.errors.exception_handler",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "llmsite",
    "DESCRIPTION": "A locally hosted chat model as a Web API.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "chat.wire.openapi.complete",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}

UNFOLD = {
    "LOGIN": {"form": "chat.access.log_in_forms.AdminLogInForm"},
    "SITE_TITLE": "llmsite",
    "SITE_HEADER": "llmsite",
    "SITE_SUBHEADER": "the record of every prompt and response",
    "STYLES": [lambda request: static("chat/admin.css")],
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("chat/icon.svg")}
    ],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s%(of_request)s %(message)s"},
    },
    # "Not ready" is an answer, and a page that waits asks for it every second.
    "filters": {
        "unexpected": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: getattr(record, "status_code", 500) != 503,
        },
        "of_request": {"()": "llmsite.request_ids.OfRequest"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["unexpected", "of_request"],
        }
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "llmsite": {"level": "INFO"},
        "chat": {"level": "INFO"},
        "modelhost": {"level": "INFO"},
        # One line for each refused request is the access log's business.
        "django.request": {"level": "ERROR"},
        # Anybody can send a wrong Host, or a form of a thousand fields, and would fill the log with
        # tracebacks. A client that leaves early is no event.
        "django.security": {"level": "CRITICAL"},
        "django.security.csrf": {"level": "WARNING"},
        "daphne.server": {"level": "ERROR"},
        "torchao": {"level": "ERROR"},  # it warns of what it has for other processors
        "torch.utils._pytree": {"level": "ERROR"},  # and torch of how torchao does things
    },
}

# The last line: variables of ours that nothing above has read are misspelt.
LLMSITE_UNREAD = env.unread("LLMSITE_")
