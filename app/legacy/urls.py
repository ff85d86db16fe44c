from django.urls import path

from legacy import views

app_name = "legacy"
urlpatterns = [path("", views.index, name="index"), path("data", views.data, name="data")]
