from django.urls import path, re_path

from chat import views

app_name = "chat"
urlpatterns = [
    path("", views.rooms, name="rooms"),
    re_path(r"^(?P<slug>[-\w]{1,240})/$", views.room, name="room"),
]
