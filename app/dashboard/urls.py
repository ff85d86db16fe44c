from django.urls import path
from django.views.decorators.cache import never_cache

from dashboard import views
from dashboard.drf import WeatherAndRestaurants

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("data", views.data, name="dashboard-data"),
    path("sync", views.in_turn, name="dashboard-sync"),
    path("drf", never_cache(WeatherAndRestaurants.as_view()), name="dashboard-drf"),
]
