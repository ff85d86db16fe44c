"""Query parameters within bounds, and the answer to those that are not: 400, or 429 out of turn."""

import functools

from asgiref.sync import iscoroutinefunction
from django.http import JsonResponse

from lab.turns import BusyError


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
        return JsonResponse({"error": str(error)}, status=429, headers={"Retry-After": "3"})
    return JsonResponse({"error": str(error)}, status=400)


def clear_refusals(view):
    """For sync and async views: what a parameter or a turn refuses becomes an answer in JSON."""
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def wrapper(*args, **kwargs):
            try:
                return await view(*args, **kwargs)
            except (ParameterError, BusyError) as error:
                return refusal(error)
    else:

        @functools.wraps(view)
        def wrapper(*args, **kwargs):
            try:
                return view(*args, **kwargs)
            except (ParameterError, BusyError) as error:
                return refusal(error)

    return wrapper
