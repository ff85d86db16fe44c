"""What went wrong, as RFC 9457 writes it, whichever framework noticed it."""

from http import HTTPStatus

from django.http import JsonResponse

TITLES = {status.value: status.phrase for status in HTTPStatus}
# as the current HTTP standard calls them, which Python 3.13 does and 3.11 does not
TITLES |= {413: "Content Too Large", 422: "Unprocessable Content"}


def problem(status, detail, errors=(), headers=None):
    body = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonResponse(body, status=status, content_type="application/problem+json", headers=headers)


def invalid(errors):
    return problem(422, "Some values cannot be taken.", errors)


def in_body(path, detail):
    """An error in the body, where a JSON pointer leads to."""
    return {"pointer": "#" + "".join(f"/{step}" for step in path), "detail": detail}


def in_query(name, detail):
    return {"parameter": name, "detail": detail}
