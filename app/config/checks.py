"""Rules between settings, which `manage.py check` tells before a release takes traffic."""

import redis
from django.conf import settings
from django.core.checks import Error, register


def is_postgresql(alias):
    return settings.DATABASES.get(alias, {}).get("ENGINE", "").endswith("postgresql")


@register
def no_long_kept_connections(**_):
    return [
        Error(
            f"The database connections of {alias!r} are kept for more than ten seconds.",
            hint="Set CONN_MAX_AGE to 10 or less: for as long a restart of PgBouncer waits for them.",
            id="pergola.E001",
        )
        for alias, database in settings.DATABASES.items()
        if database.get("CONN_MAX_AGE", 0) is None or database.get("CONN_MAX_AGE", 0) > 10
    ]


@register
def no_cursors_on_the_server(**_):
    if not is_postgresql("default") or settings.DATABASES["default"].get("DISABLE_SERVER_SIDE_CURSORS"):
        return []
    return [
        Error(
            "Queries through PgBouncer may leave a cursor on the server.",
            hint="Set DISABLE_SERVER_SIDE_CURSORS to True: .iterator() fails under load.",
            id="pergola.E002",
        )
    ]


@register
def a_direct_alias(**_):
    if "direct" in settings.DATABASES:
        return []
    return [
        Error(
            "There is no database alias 'direct'.",
            hint="Add one that goes past PgBouncer: migrations, LISTEN and advisory locks need a session.",
            id="pergola.E003",
        )
    ]


@register
def direct_is_the_same_database(**_):
    default, direct = settings.DATABASES["default"], settings.DATABASES.get("direct")
    if direct is None or all(default.get(key) == direct.get(key) for key in ("ENGINE", "NAME")):
        return []
    return [
        Error(
            "The aliases 'default' and 'direct' name different databases.",
            hint="Give both the same ENGINE and NAME, or migrations go where no request looks.",
            id="pergola.E004",
        )
    ]


@register
def one_time_zone(**_):
    if settings.TIME_ZONE == "UTC":
        return []
    return [
        Error(
            f"TIME_ZONE is {settings.TIME_ZONE!r}.",
            hint="Set it to 'UTC' and activate() a user's own: it is the process's, and divides the logs.",
            id="pergola.E005",
        )
    ]


@register
def no_core_layer_with_a_timeout(**_):
    """The core layer waits 5 s for a message, and redis-py 8 gives up after 5 s unless told otherwise."""

    def patient(host):
        return isinstance(host, dict) and "socket_timeout" in host

    return [
        Error(
            f"The channel layer {alias!r} closes an idle WebSocket every five seconds.",
            hint="Use channels_redis.pubsub.RedisPubSubChannelLayer, or give hosts 'socket_timeout': None.",
            id="pergola.E006",
        )
        for alias, layer in getattr(settings, "CHANNEL_LAYERS", {}).items()
        if layer["BACKEND"] == "channels_redis.core.RedisChannelLayer"
        and int(redis.__version__.split(".")[0]) >= 8
        and not all(patient(host) for host in layer.get("CONFIG", {}).get("hosts", [None]))
    ]
