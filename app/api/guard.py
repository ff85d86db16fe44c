"""What both APIs do with a request before their framework sees it: so they answer alike, and always clearly.

Frameworks differ most in what they do with bad input: which media types they read, whether a body has a
limit, what an unsupported method is answered, what a document of ten thousand nested arrays does to them.
"""

import json
import logging
import time
from functools import wraps

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError

from api.problems import problem

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024  # the longest post fits in, also where each of its characters is two escapes
MINUTE = 60
KINDS = {"GET": "read", "HEAD": "read"}


def guarded(view, methods, kind=None):
    """`kind` is the limit that counts, see API_REQUESTS_PER_MINUTE; reading and writing have their own."""

    @wraps(view)
    async def wrapper(request, *args, **kwargs):
        refusal = (
            method_refusal(request, methods)
            or await rate_refusal(request, kind or KINDS.get(request.method, "write"))
            or body_refusal(request)
        )
        if refusal:
            return refusal
        asked, request.method = request.method, "GET" if request.method == "HEAD" else request.method
        try:
            return await view(request, *args, **kwargs)
        finally:
            request.method = asked  # who leaves the body of a HEAD out has to know

    wrapper.csrf_exempt = True  # credentials are a header, which no other site's form can send
    return wrapper


async def not_found(request, **_):
    return problem(404, "There is nothing at this address.")


not_found.csrf_exempt = True


def method_refusal(request, methods):
    if request.method in methods or (request.method == "HEAD" and "GET" in methods):
        return None
    headers = {"Allow": ", ".join([*methods, "HEAD"] if "GET" in methods else methods)}
    return problem(405, f"{request.method} is not possible here.", headers=headers)


@sync_to_async
def requests_so_far(key):
    """Sync, and in one piece: cache.aincr() reads and writes in two steps, and loses counts between them.

    (!) `key` names its minute and is kept for two, so that it does not end between the two questions of
    incr(), whether it is there and what it becomes: it would be made anew without an end, and refuse its
    address for ever.
    """
    cache.add(key, 0, 2 * MINUTE)
    return cache.incr(key)


async def rate_refusal(request, kind):
    address = request.META.get("REMOTE_ADDR", "")  # nginx tells it, and no client can
    minute, second = divmod(int(time.time()), MINUTE)
    try:
        count = await requests_so_far(f"api:{kind}:{address}:{minute}")
    except (RedisError, ValueError) as error:  # a ValueError: Redis was emptied meanwhile
        logger.warning("requests are not counted: %s", type(error).__name__)
        return None
    limit = settings.API_REQUESTS_PER_MINUTE[kind]
    if count <= limit:
        return None
    headers = {"Retry-After": str(MINUTE - second)}
    return problem(429, f"More than {limit} requests in a minute.", headers=headers)


def body_refusal(request):
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BYTES:
        return problem(413, f"The body is larger than {MAX_BYTES} bytes.")
    if request.method not in ("POST", "PUT", "PATCH"):
        return None
    if request.content_type != "application/json":
        return problem(415, "The body has to be application/json.")
    if len(request.body) > MAX_BYTES:
        return problem(413, f"The body is larger than {MAX_BYTES} bytes.")
    # REST framework reads no body whose length was not told, as that of a chunked request is not.
    request.META["CONTENT_LENGTH"] = str(len(request.body))
    try:
        document = json.loads(request.body.decode(), parse_constant=refuse_constant)
        # Half of a surrogate pair is allowed in JSON and is no text that a database keeps.
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return problem(400, "The body has an escape that is no character.")
    except (ValueError, RecursionError):
        return problem(400, "The body is not JSON in UTF-8.")
    return None


def refuse_constant(name):
    raise ValueError(f"{name} is not JSON")
