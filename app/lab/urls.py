from django.urls import path
from django.views.decorators.cache import never_cache

from lab import pairs, rows, views


def measured(view):
    """never_cache here, and not on dispatch(): that returns a coroutine, but is not an async function."""
    return never_cache(view.as_view())


app_name = "lab"
urlpatterns = [
    path("", views.index, name="index"),
    path("sync/", measured(pairs.SyncFast), name="sync"),
    path("async/", measured(pairs.AsyncFast), name="async"),
    path("sync/sleep/", measured(pairs.SyncSleep), name="sync-sleep"),
    path("async/sleep/", measured(pairs.AsyncSleep), name="async-sleep"),
    path("sync/row/", measured(rows.SyncRow), name="sync-row"),
    path("async/row/", measured(rows.AsyncRow), name="async-row"),
    path("task/", measured(views.Work), name="work"),
    path("deadlock/", measured(views.Locked), name="deadlock"),
    path("deadlock/mended/", measured(views.Mended), name="deadlock-mended"),
    path("neighbours/", views.neighbours_page, name="neighbours"),
    path("neighbours/data", views.neighbours_data, name="neighbours-data"),
    path("orm/", views.orm, name="orm"),
    path("hops/", views.thread_hops, name="hops"),
]
