from django.urls import include, path

from core import health, views

urlpatterns = [
    path("", views.home, name="home"),
    path("visits/", views.visits, name="visits"),
    path("dashboard/", include("dashboard.urls")),
    path("cache/", include("cache.urls")),
    path("lab/", include("lab.urls")),
    path("legacy/", include("legacy.urls")),
    path("livez", health.livez),
    path("readyz", health.readyz),
]
