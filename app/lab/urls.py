from django.urls import path
from django.views.decorators.cache import never_cache

from lab import views


def measured(view):
    """never_cache here, and not on dispatch(): that returns a coroutine, but is not an async function."""
    return never_cache(view.as_view())


app_name = "lab"
urlpatterns = [
    path("", views.index, name="index"),
    path("sync/", measured(views.SyncFast), name="sync"),
    path("async/", measured(views.AsyncFast), name="async"),
    path("sync/sleep/", measured(views.SyncSleep), name="sync-sleep"),
    path("async/sleep/", measured(views.AsyncSleep), name="async-sleep"),
    path("sync/row/", measured(views.SyncRow), name="sync-row"),
    path("async/row/", measured(views.AsyncRow), name="async-row"),
    path("task/", measured(views.Work), name="work"),
    path("deadlock/", measured(views.Locked), name="deadlock"),
    path("deadlock/mended/", measured(views.Mended), name="deadlock-mended"),
    path("orm/", views.orm, name="orm"),
    path("hops/", views.thread_hops, name="hops"),
]
