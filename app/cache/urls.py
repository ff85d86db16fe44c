from django.urls import path

from cache import views

app_name = "cache"
urlpatterns = [
    path("", views.index, name="index"),
    path("value", views.value, name="value"),
    path("page", views.page, name="page"),
]
