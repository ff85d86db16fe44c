from django.urls import path

from jobs import views

app_name = "jobs"
urlpatterns = [
    path("", views.index, name="index"),
    path("start", views.start, name="start"),
    path("bridge/", views.bridge_page, name="bridge"),
    path("bridge/data", views.bridge_data, name="bridge_data"),
    path("<uuid:job_id>", views.data, name="data"),
    path("<uuid:job_id>/cancel", views.cancel, name="cancel"),
    path("<uuid:job_id>/events", views.events, name="events"),
]
