"""Gives each request an id and says how long the answer took; says what a page may load.

Sync and async in one class: Django asks what it can do and gives it the matching `get_response`, so that it
adds no hop to a thread on either side. A middleware on MiddlewareMixin would cost two.
"""

import logging
import re
import secrets
import time

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from pergola_runtime.logs import request_id

# A client or a proxy may bring its own. It lands in our log, so nothing that could pass for a line of it.
BROUGHT = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestIDFilter(logging.Filter):
    """For `%(request_id)s` in a log format."""

    def filter(self, record):
        # Django's own line about a 4xx or 5xx comes after the middleware, and brings its request along.
        request = getattr(record, "request", None)
        record.request_id = getattr(request, "id", None) or request_id.get()
        return True


class SyncAndAsync:
    sync_capable = True
    async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)


class RequestMiddleware(SyncAndAsync):
    def __call__(self, request):
        if self.is_async:
            return self.__acall__(request)
        token, began = self.begin(request)
        try:
            return self.mark(request, self.get_response(request), began)
        finally:
            request_id.reset(token)

    async def __acall__(self, request):
        token, began = self.begin(request)
        try:
            return self.mark(request, await self.get_response(request), began)
        finally:
            request_id.reset(token)

    def begin(self, request):
        brought = request.META.get("HTTP_X_REQUEST_ID", "")
        request.id = brought if BROUGHT.fullmatch(brought) else secrets.token_hex(16)
        return request_id.set(request.id), time.perf_counter()

    def mark(self, request, response, began):
        """The time until the headers: a streamed body comes after them."""
        milliseconds = f"{(time.perf_counter() - began) * 1000:.1f}"
        response["X-Request-ID"] = request.id
        response["X-Elapsed-Ms"] = milliseconds
        # A view may have named parts of its own.
        own = [response["Server-Timing"]] if "Server-Timing" in response else []
        response["Server-Timing"] = ", ".join([*own, f"app;dur={milliseconds}"])
        return response


# Nothing inline and nothing from elsewhere. 'self' in connect-src is also the WebSockets of this host; data:
# are the pictures within the stylesheet of the API's documentation.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)


class ContentSecurityPolicyMiddleware(SyncAndAsync):
    def __call__(self, request):
        if self.is_async:
            return self.__acall__(request)
        return self.mark(self.get_response(request))

    async def __acall__(self, request):
        return self.mark(await self.get_response(request))

    def mark(self, response):
        # Django's pages of errors for developers carry their style and scripts inline.
        if not (settings.DEBUG and response.status_code in (404, 500)):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        return response
