"""Rooms, and messages that are numbered within their room."""

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

MAX_NAME = 60
MAX_SLUG = 4 * MAX_NAME  # normalising may lengthen what a visitor typed
MAX_TEXT = 2_000


class Room(models.Model):
    name = models.CharField(max_length=MAX_NAME)
    slug = models.SlugField(max_length=MAX_SLUG, unique=True, allow_unicode=True)
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="rooms")
    made_at = models.DateTimeField(default=timezone.now, editable=False)
    last = models.PositiveBigIntegerField(default=0, editable=False)  # the last message's number

    class Meta:
        ordering = ["name", "pk"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("chat:room", args=[self.slug])


class Message(models.Model):
    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    number = models.PositiveBigIntegerField()  # what clients know as its id
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="messages")
    key = models.UUIDField()  # made by the client: sent again after a reconnect, it is the same message
    text = models.TextField(max_length=MAX_TEXT)
    at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)

    class Meta:
        ordering = ["room", "number"]
        constraints = [
            models.UniqueConstraint(fields=["room", "number"], name="message_number"),
            models.UniqueConstraint(fields=["room", "author", "key"], name="message_once"),
        ]

    def __str__(self):
        return f"{self.room_id}/{self.number}"
