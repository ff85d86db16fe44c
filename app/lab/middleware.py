"""One header, four ways; `lab.hops` counts what each costs a request."""

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin


def sync_only(get_response):
    """A function without a mark can only be sync: all that is further in runs in or through its thread."""

    def middleware(request):
        response = get_response(request)
        response["X-Lab"] = "sync"
        return response

    return middleware


@sync_and_async_middleware
def both(get_response):
    if iscoroutinefunction(get_response):

        async def middleware(request):
            response = await get_response(request)
            response["X-Lab"] = "async"
            return response
    else:

        def middleware(request):
            response = get_response(request)
            response["X-Lab"] = "sync"
            return response

    return middleware


class Mixin(MiddlewareMixin):
    """Says that it is async; each of its hooks is run in a thread all the same."""

    def process_request(self, request):
        pass

    def process_response(self, request, response):
        response["X-Lab"] = "mixin"
        return response
