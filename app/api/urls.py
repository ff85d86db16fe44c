"""The same addresses twice, each behind the same guard: /api/drf/... and /api/ninja/..."""

from django.urls import path, re_path
from django.views.generic import TemplateView

from api import drf
from api.guard import guarded, not_found
from api.ninja import api

METHODS = {
    "async-hello": ["GET"],
    "user-info": ["GET"],
    "tokens": ["POST", "DELETE"],
    "posts": ["GET", "POST"],
    "post": ["GET", "PATCH", "DELETE"],
}
LIMITS = {"tokens": "token"}


def behind_the_guard(patterns):
    for pattern in patterns:
        if pattern.name in METHODS:
            pattern.callback = guarded(pattern.callback, METHODS[pattern.name], LIMITS.get(pattern.name))
        elif pattern.name == "api-root":  # Ninja's, whose name the document is made with
            pattern.callback = not_found
    return patterns


ninja_patterns, *_ = api.urls

app_name = "api"
urlpatterns = [
    path("", TemplateView.as_view(template_name="api/index.html"), name="index"),
    path("ninja/", (behind_the_guard(ninja_patterns), "ninja", "ninja")),
    path(
        "drf/",
        (
            behind_the_guard(
                [
                    path("async-hello", drf.AsyncHello.as_view(), name="async-hello"),
                    path("user-info", drf.Info.as_view(), name="user-info"),
                    path("tokens", drf.Tokens.as_view(), name="tokens"),
                    path("posts", drf.Posts.as_view(), name="posts"),
                    path("posts/<int:number>", drf.OnePost.as_view(), name="post"),
                ]
            ),
            "drf",
            "drf",
        ),
    ),
    re_path(r"^", not_found),
]
