"""Django's settings. What differs between machines comes from env.py; the rules are in checks.py."""

from pathlib import Path

from django.core.files.storage import FileSystemStorage

from config.env import read
from config.redis_urls import for_celery

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = read("DEBUG")
SECRET_KEY = read("SECRET_KEY")
ALLOWED_HOSTS = read("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = read("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "config.apps.ConfigConfig",
    "cache",
    "chat",
    "core",
    "dashboard",
    "jobs",
    "lab",
    "legacy",
    "posts",
    "api",
    "upkeep",
    "ninja",  # its documentation's scripts come from our own static files, not from elsewhere
    "rest_framework",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
if DEBUG:  # its runserver serves WebSockets too, and HTTP on one event loop, as a worker does
    INSTALLED_APPS.insert(0, "daphne")

# Only what the pages here need: under Django's own ASGI handler each hook of each of Django's is a hop to a
# thread and back.
MIDDLEWARE = [
    "core.middleware.RequestMiddleware",
    "core.middleware.ContentSecurityPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                # (!) `user` and `perms` of this one query when a template looks at them, which an async view
                # must not: such a view passes its own `user`, from `await request.auser()`.
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Under Django's own ASGI handler each request has a thread of its own, so that a kept connection is never
# found again: with CONN_MAX_AGE=60 they piled up until PostgreSQL refused more. pergola_runtime's keeps its
# threads, and sets the age that it can keep. PgBouncer gives a connection to somebody else after each
# transaction, so that no cursor on the server outlives one.
# `direct` is the same database past PgBouncer, for what needs a session: migrations, LISTEN, locks.
DATABASES = {
    "default": read("DATABASE_URL") | {"CONN_MAX_AGE": 0, "DISABLE_SERVER_SIDE_CURSORS": True},
    "direct": read("DATABASE_DIRECT_URL") | {"CONN_MAX_AGE": 0, "TEST": {"MIRROR": "default"}},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The pub/sub layer: the core one drops messages to a busy consumer and, with redis-py 8, idle WebSockets.
REDIS_URL = read("REDIS_URL")
if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL]},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

# A Redis database of its own: the cache's clear() empties the whole one that it stands in. JSON alone, so
# that whoever can write to Redis cannot run code here. No results there: a job's result is in its row,
# written in the transaction that marks it as done.
CELERY_BROKER_URL = for_celery(REDIS_URL)
CELERY_TASK_ALWAYS_EAGER = not REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
# A message is given back when its work ends and not when it begins; so a killed worker's jobs run again.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1  # nobody holds what somebody else could begin
CELERY_TASK_SOFT_TIME_LIMIT, CELERY_TASK_TIME_LIMIT = 50, 55
# (!) The timeout is longer than the longest task (55 s) and than a retry's wait (4 s) together with the wait
# for a process, which jobs hold for ten seconds each; else the message is given out a second time. That can
# happen where many retries wait for one process, and costs a second run, which the job's row makes harmless.
# A task with a delay of more than half the timeout is refused (celery.py).
# What a killed worker held comes back after at most the timeout and one look (the interval),
# or the lock of a worker that was killed while it looked.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 60,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 20,
    # without these, whoever sends to a Redis that is away waits for seconds
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "socket_connect_timeout": 2,
    "socket_timeout": 10,  # for an answer of a Redis that hangs; 0.4 in the servers of requests (asgi.py)
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    # It waits behind the visitors' jobs, and may be late; what must be on time wants a queue and a worker of
    # its own. Those that nobody took for minutes are worth nothing.
    "refresh": {"task": "jobs.refresh", "schedule": 15, "options": {"expires": 300}},
}
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False  # the format below

# The release's own directory. nginx serves those of all releases that a host keeps.
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / read("STATIC_ROOT")
MEDIA_URL = "media/"
MEDIA_ROOT = BASE_DIR / read("MEDIA_ROOT")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
        "OPTIONS": {"manifest_storage": FileSystemStorage(location=BASE_DIR)},
    },
}

# In a cookie alone: a session's would be read by templates, and so from async views.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "posts:list"

API_REQUESTS_PER_MINUTE = {"read": 600, "write": 120, "token": 10}  # from one address

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SILENCED_SYSTEM_CHECKS = [
    # nginx answers static files and its own errors too, so that it alone can do these for every response:
    "security.W004",  # Strict-Transport-Security
    "security.W008",  # the redirect from http to https
]

UPSTREAMS_SOCKET = BASE_DIR / read("UPSTREAMS_SOCKET")
LAB_ASGI_SOCKET = BASE_DIR / read("LAB_ASGI_SOCKET")
LAB_WSGI_SOCKET = BASE_DIR / read("LAB_WSGI_SOCKET")

EMAIL_HOST = read("EMAIL_HOST")
EMAIL_PORT = read("EMAIL_PORT")
DEFAULT_FROM_EMAIL = read("DEFAULT_FROM_EMAIL")

# Django gives the process this zone; with another, the log lines of gunicorn's master and workers differ.
TIME_ZONE = "UTC"

# systemd's journal takes standard error, and adds the time and the process.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"()": "pergola_runtime.logs.Formatter"}},
    "filters": {"request_id": {"()": "core.middleware.RequestIDFilter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["request_id"]}
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    # Django's own configuration sends errors by mail and, under DEBUG, prints them a second time.
    "loggers": {
        "django": {"handlers": [], "level": "INFO" if DEBUG else "WARNING"},
        # a line for each job that ended, none for each that came or was sent by the clock
        "celery": {"level": "INFO"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
