from django.urls import path, register_converter
from django.urls.converters import IntConverter

from posts import views


class NumberConverter(IntConverter):
    regex = "[0-9]{1,18}"  # what a database's key can be; a longer one is no page of ours


register_converter(NumberConverter, "number")

app_name = "posts"
urlpatterns = [
    path("", views.posts, name="list"),
    path("new/", views.create, name="create"),
    path("<number:number>/", views.detail, name="detail"),
    path("<number:number>/edit/", views.edit, name="edit"),
    path("<number:number>/delete/", views.delete, name="delete"),
    path("<number:number>/attachments/", views.attach, name="attach"),
    path("<number:number>/attachments/<number:attachment_number>/", views.attachment, name="attachment"),
    path("<number:number>/attachments/<number:attachment_number>/delete/", views.detach, name="detach"),
]
