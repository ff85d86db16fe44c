"""Query parameters within bounds, and the answer to those that are not: 400. 429 out of turn,
503 where a demonstration lacks a part."""

import functools

from asgiref.sync import iscoroutinefunction
from django.http import JsonResponse

from lab.turns import BusyError, UnavailableError


class ParameterError(ValueError):
    pass


def number(request, name, default, low, high, kind=float):
    text = request.GET.get(name, str(default))
    try:
        value = kind(text)
    except ValueError:
        value = None
    # The negation refuses "nan" as well, which is neither below nor above anything.
    if value is None or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        raise ParameterError(f"{name} must be {what} from {low} to {high}")
    return value


def choice(request, name, default, choices):
    value = request.GET.get(name, default)
    if value not in choices:
        raise ParameterError(f"{name} must be one of: {', '.join(choices)}")
    return value


def refusal(error):
    if isinstance(error, BusyError):
        return JsonResponse({"error": str(error)}, status=429, headers={"Retry-After": "1"})
    if isinstance(error, ParameterError):
        return JsonResponse({"error": str(error)}, status=400)
    return JsonResponse({"error": str(error)}, status=503)


REFUSED = (ParameterError, BusyError, UnavailableError)


def clear_refusals(view):
    """For sync and async views: what a parameter or a turn refuses becomes an answer in JSON."""
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def wrapper(*args, **kwargs):
            try:
                return await view(*args, **kwargs)
            except REFUSED as error:
                return refusal(error)
    else:

        @functools.wraps(view)
        def wrapper(*args, **kwargs):
            try:
                return view(*args, **kwargs)
            except REFUSED as error:
                return refusal(error)

    return wrapper
