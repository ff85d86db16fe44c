from django.urls import path

from core import health, views

urlpatterns = [
    path("", views.home, name="home"),
    path("visits/", views.visits, name="visits"),
    path("livez", health.livez),
    path("readyz", health.readyz),
]
