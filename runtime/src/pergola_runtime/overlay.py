"""What production needs, over a project's own settings: `over(names, environ)` returns the names to set.

For a project that does not read its environment itself. What it says stays as it is but for what cannot be
right on a server of Pergola: its secrets, its addresses, and what each process would keep to itself.

    python -m pergola_runtime.overlay shop.asgi:application   refuses one that does not take these settings
"""

import importlib
import re
import sys
from urllib.parse import parse_qsl, unquote, urlsplit

from pergola_runtime.pooling import database_problem

MODULE = "pergola_runtime.settings"
REQUIRED = ("SECRET_KEY", "ALLOWED_HOSTS", "DATABASE_URL", "DATABASE_DIRECT_URL", "REDIS_URL", "STATIC_ROOT")
# Databases of Redis. A cache's clear() empties its whole database, so jobs, messages and each cache with a
# place of its own in the project's settings have one here. infra/redis/redis.conf.j2 has the number of all.
DEFAULT_CACHE_DATABASE, CELERY_DATABASE, CHANNELS_DATABASE = 0, 1, 2
# of a cache in another place than `default`: this plus the project's own number, the same in each release
FIRST_CACHE_DATABASE = 3
DATABASES_OF_REDIS = 32
LAST_CACHE_NUMBER = DATABASES_OF_REDIS - FIRST_CACHE_DATABASE - 1
# of DATABASES: how the project uses its database, wherever it is
KEPT = ("ATOMIC_REQUESTS", "AUTOCOMMIT", "CONN_HEALTH_CHECKS", "TEST", "TIME_ZONE")
# of OPTIONS: where the database is
ADDRESSES = ("dbname", "host", "hostaddr", "passfile", "password", "port", "service", "user")
# each process has its own, which the others never see
PRIVATE_CACHES = ("locmem.LocMemCache", "dummy.DummyCache")
REDIS_CACHES = ("django.core.cache.backends.redis.", "django_redis.")
# mail that never leaves
MUTE_MAIL = ("console.", "dummy.", "filebased.", "locmem.")
PLAIN_STATIC = "django.contrib.staticfiles.storage.StaticFilesStorage"


def names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def postgresql(url, own):
    """A database's settings from its URL; how the project uses it is the project's own choice."""
    parts = urlsplit(url)
    engine = own.get("ENGINE", "")
    options = {key: value for key, value in own.get("OPTIONS", {}).items() if key not in ADDRESSES}
    return {key: own[key] for key in KEPT if key in own} | {
        "OPTIONS": options | dict(parse_qsl(parts.query)),
        # PostGIS, or one that measures
        "ENGINE": engine if "postg" in engine else "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        # a socket's directory is written as %2Frun%2F..., whose letters `hostname` would make small
        "HOST": unquote(parts.netloc.rpartition("@")[2].partition(":")[0]),
        "PORT": str(parts.port or ""),
        # Django's own ASGI handler never finds a kept connection again; pergola_runtime's sets the age itself
        "CONN_MAX_AGE": 0,
    }


def without_pool(own):
    """A few long sessions need no pool."""
    return own | {"OPTIONS": {key: value for key, value in own.get("OPTIONS", {}).items() if key != "pool"}}


def databases(own, environ):
    default = own.get("default", {})
    if problem := database_problem("default", default, environ):
        sys.exit(f"{MODULE}: {problem}")
    return own | {
        # no cursor outlives a transaction, after which PgBouncer gives the connection to others
        "default": postgresql(environ["DATABASE_URL"], default) | {"DISABLE_SERVER_SIDE_CURSORS": True},
        "direct": postgresql(environ["DATABASE_DIRECT_URL"], without_pool(default))
        | {"TEST": {"MIRROR": "default"}},
    }


def redis_database(url, number):
    return urlsplit(url)._replace(path=f"/{number}").geturl()


def place(cache):
    """Where a project's cache is: (server, number of its database in Redis)"""
    location, options = cache.get("LOCATION") or "", cache.get("OPTIONS", {})
    first = location if isinstance(location, str) else next(iter(location), "")
    url = urlsplit(re.split("[;,]", first)[0])  # of a list of replicas
    path, query = url.path.strip("/"), dict(parse_qsl(url.query))
    if url.scheme == "unix":
        server, path = path, ""
    else:
        server = (url.hostname or "").replace("localhost", "127.0.0.1"), url.port or 6379
    # in the order in which redis-py, Django and django-redis take them
    numbers = query.get("db"), path, options.get("db"), options.get("CONNECTION_POOL_KWARGS", {}).get("db")
    return server, next((int(number) for number in numbers if str(number).isdecimal()), 0)


def without_number(options):
    """The number is in the URL."""
    kept = {key: value for key, value in options.items() if key != "db"}
    if "CONNECTION_POOL_KWARGS" in kept:
        kept["CONNECTION_POOL_KWARGS"] = without_number(kept["CONNECTION_POOL_KWARGS"])
    return kept


def caches(own, url):
    """Aliases that the project has in the same database share one here as well; others have their own."""
    own = {"default": {}} | own
    default = own["default"]
    of_default = place(default) if default.get("BACKEND", "").startswith(REDIS_CACHES) else None
    taken = {}  # the project's place of a cache, by the number of its database here

    def placed(alias, cache):
        where = place(cache)
        number = DEFAULT_CACHE_DATABASE if where == of_default else FIRST_CACHE_DATABASE + where[1]
        if number >= DATABASES_OF_REDIS or taken.setdefault(number, where) != where:
            sys.exit(
                f"{MODULE}: CACHES[{alias!r}] is in database {where[1]}, and Pergola has one Redis for all "
                f"caches: name a number that no other Redis of yours has, up to {LAST_CACHE_NUMBER}"
            )
        options = {"OPTIONS": without_number(cache["OPTIONS"])} if "OPTIONS" in cache else {}
        return cache | options | {"LOCATION": redis_database(url, number)}

    def shared(alias, cache):
        backend = cache.get("BACKEND", "")
        if alias == "default" and (not backend or backend.endswith(PRIVATE_CACHES)):
            prefix = {"KEY_PREFIX": cache["KEY_PREFIX"]} if "KEY_PREFIX" in cache else {}
            ours = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
            return prefix | ours | {"LOCATION": redis_database(url, DEFAULT_CACHE_DATABASE)}
        return placed(alias, cache) if backend.startswith(REDIS_CACHES) else cache

    return {alias: shared(alias, cache) for alias, cache in own.items()}


def channel_layers(own, url):
    url = redis_database(url, CHANNELS_DATABASE)

    def shared(layer):
        backend, config = layer.get("BACKEND", ""), layer.get("CONFIG", {})
        if not backend or backend.endswith("InMemoryChannelLayer"):
            # the core layer drops messages to a busy consumer
            backend, config = "channels_redis.pubsub.RedisPubSubChannelLayer", {}
        if not backend.startswith("channels_redis."):
            return layer
        # (!) redis-py 8 gives up after five seconds, which closes idle WebSockets on the core layer
        host = {"address": url, "socket_timeout": None} if "core" in backend else url
        return {"BACKEND": backend, "CONFIG": config | {"hosts": [host]}}

    return {alias: shared(layer) for alias, layer in ({"default": {}} | own).items()}


def cookie_domains(own, hosts):
    """A browser throws a cookie away whose domain is not the site's: none, where it is another's."""

    def ours(domain):
        domain = domain.lstrip(".")
        return any(host == domain or host.endswith(f".{domain}") for host in hosts)

    names_of = ("SESSION_COOKIE_DOMAIN", "CSRF_COOKIE_DOMAIN", "LANGUAGE_COOKIE_DOMAIN")
    named = {name: own.get(name) for name in names_of}
    return {name: None for name, domain in named.items() if domain and not ours(domain)}


def storages(own, directory):
    """Names of static files get a hash, as nginx lets browsers keep them for ever."""
    static = own.get("staticfiles", {}).get("BACKEND", PLAIN_STATIC)
    if static != PLAIN_STATIC:
        return own
    hashed = {
        "BACKEND": "pergola_runtime.staticfiles.HashedStaticFilesStorage",
        # the list of names is the release's, and stays inside it
        "OPTIONS": {"manifest_directory": directory},
    }
    return (
        {"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"}}
        | own
        | {"staticfiles": hashed}
    )


def mail(own, environ):
    if not environ.get("EMAIL_HOST"):
        return {}
    host, port = environ["EMAIL_HOST"], int(environ.get("EMAIL_PORT") or 25)
    sender = (
        {"DEFAULT_FROM_EMAIL": environ["DEFAULT_FROM_EMAIL"]} if environ.get("DEFAULT_FROM_EMAIL") else {}
    )
    sender |= {"SERVER_EMAIL": sender["DEFAULT_FROM_EMAIL"]} if sender else {}
    smtp = "django.core.mail.backends.smtp.EmailBackend"
    if "MAILERS" in own:  # Django 6.1; it refuses the names below beside it
        mailers = own["MAILERS"] | {"default": {"BACKEND": smtp, "OPTIONS": {"host": host, "port": port}}}
        return sender | {"MAILERS": mailers}
    backend = own.get("EMAIL_BACKEND", smtp)
    # the relay takes mail from this host as it is: no account, no encryption of another server's
    account = {
        "EMAIL_HOST_USER": "",
        "EMAIL_HOST_PASSWORD": "",
        "EMAIL_USE_TLS": False,
        "EMAIL_USE_SSL": False,
    }
    return (
        sender
        | account
        | {
            "EMAIL_BACKEND": smtp if any(mute in backend for mute in MUTE_MAIL) else backend,
            "EMAIL_HOST": host,
            "EMAIL_PORT": port,
        }
    )


def logging(own):
    """To standard error, which is the journal's: the application can write no log file."""
    if not own:  # Django's own says nothing without DEBUG, and sends errors by mail
        handlers = {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}}
        return {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"()": "pergola_runtime.logs.Formatter"}},
            "handlers": handlers,
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"django": {"handlers": [], "level": "WARNING"}},
        }
    handlers = {
        name: {key: handler[key] for key in ("level", "formatter", "filters") if key in handler}
        | {"class": "logging.StreamHandler"}
        if "filename" in handler
        else handler
        for name, handler in own.get("handlers", {}).items()
    }
    return own | {"handlers": handlers}


def over(own, environ, directory="."):
    """``own``: the project's names. ``directory``: the release's, for the list of its static files."""
    missing = [name for name in REQUIRED if not environ.get(name)]
    if missing:
        sys.exit(f"{MODULE} wants {', '.join(missing)} in the environment: run it as app-manage does")
    redis = environ["REDIS_URL"]
    broker = redis_database(redis, CELERY_DATABASE)
    names_set = {
        "DEBUG": False,
        "SECRET_KEY": environ["SECRET_KEY"],
        "ALLOWED_HOSTS": names(environ["ALLOWED_HOSTS"]),
        "CSRF_TRUSTED_ORIGINS": names(environ.get("CSRF_TRUSTED_ORIGINS", "")),
        # nginx overwrites it on each request, and no other client reaches the application
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "USE_X_FORWARDED_HOST": False,
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        # nginx says it and redirects, for static files and its own errors as well
        "SECURE_HSTS_SECONDS": 0,
        "SECURE_SSL_REDIRECT": False,
        "SILENCED_SYSTEM_CHECKS": [*own.get("SILENCED_SYSTEM_CHECKS", []), "security.W004", "security.W008"],
        "DATABASES": databases(own.get("DATABASES", {}), environ),
        "CACHES": caches(own.get("CACHES", {}), redis),
        "CHANNEL_LAYERS": channel_layers(own.get("CHANNEL_LAYERS", {}), redis),
        "CELERY_BROKER_URL": broker,
        "STATIC_URL": environ.get("STATIC_URL") or own.get("STATIC_URL") or "/static/",
        "STATIC_ROOT": environ["STATIC_ROOT"],
        "LOGGING": logging(own.get("LOGGING", {})),
    }
    names_set |= cookie_domains(own, names_set["ALLOWED_HOSTS"])
    if str(own.get("CELERY_RESULT_BACKEND", "")).startswith("redis"):
        names_set["CELERY_RESULT_BACKEND"] = broker
    # Django 4.2's older names, which exclude the newer one
    if "STATICFILES_STORAGE" not in own and "DEFAULT_FILE_STORAGE" not in own:
        names_set["STORAGES"] = storages(own.get("STORAGES", {}), directory)
    if environ.get("MEDIA_ROOT"):
        names_set["MEDIA_ROOT"] = environ["MEDIA_ROOT"]
    if environ.get("MEDIA_URL"):
        names_set["MEDIA_URL"] = environ["MEDIA_URL"]
    return names_set | mail(own, environ)


def main():
    """Refuses an application that would run without them, with DEBUG and its own key."""
    module = sys.argv[1].partition(":")[0]
    importlib.import_module(module)
    from django.conf import settings

    if settings.SETTINGS_MODULE != MODULE:
        sys.exit(
            f"{module} sets DJANGO_SETTINGS_MODULE to {settings.SETTINGS_MODULE} whatever the "
            "environment says, and app_settings_overlay has no effect: write os.environ.setdefault(...), "
            "or set app_asgi to ''"
        )


if __name__ == "__main__":
    main()
