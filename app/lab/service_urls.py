from django.urls import path

from lab import pairs

# The crowd of async sleepers has to come in before the first wakes; it is sent home when all were seen.
urlpatterns = [
    path("fast/sync/", pairs.SyncFast.as_view()),
    path("fast/async/", pairs.AsyncFast.as_view()),
    path("fast/pool/", pairs.PoolFast.as_view()),
    path("sleep/sync/", pairs.SyncSleep.as_view()),
    path("sleep/async/", pairs.AsyncSleep.as_view(longest=12)),
    path("sleep/blocking/", pairs.BlockingSleep.as_view()),
    path("sleep/pool/", pairs.PoolSleep.as_view()),
]
