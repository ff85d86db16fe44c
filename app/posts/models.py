"""Authors write posts, posts carry tags and attachments, and each change of a post leaves a line behind."""

from uuid import uuid4

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

MAX_TITLE = 200
MAX_BODY = 20_000
MAX_TAG = 40
MAX_TAGS = 8
# What Python calls white space, and no \s: what that means differs from language to language, and the API's
# document shows these patterns to all of them.
SPACES = r"\x09-\x0d\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
TAG_PATTERN = rf"^[^{SPACES},\x00-\x1f\x7f]+$"  # one word in any script


def count_words(text):
    return len(text.split())


class Author(models.Model):
    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="author")
    name = models.CharField(max_length=150)

    class Meta:
        ordering = ["name", "pk"]

    def __str__(self):
        return self.name


class Tag(models.Model):
    # four times as long as what is accepted: normalising it may lengthen it
    name = models.CharField(max_length=4 * MAX_TAG, unique=True, validators=[RegexValidator(TAG_PATTERN)])

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class PostQuerySet(models.QuerySet):
    def whole(self):
        """With everything that a page or an answer shows of a post.

        In async code a relation that was not loaded cannot be loaded later: `post.author` then raises
        SynchronousOnlyOperation. So each query says beforehand what will be looked at.
        """
        return self.select_related("author__user").prefetch_related("tags", "attachments")

    def by(self, username):
        return self.filter(author__user__username=username)

    def tagged(self, name):
        return self.filter(tags__name=name)

    def saying(self, text):
        return self.filter(models.Q(title__icontains=text) | models.Q(body__icontains=text))


class Post(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, related_name="posts")
    title = models.CharField(max_length=MAX_TITLE)
    body = models.TextField(max_length=MAX_BODY)
    tags = models.ManyToManyField(Tag, related_name="posts", blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)
    views = models.PositiveIntegerField(default=0, editable=False)
    # None: from before there was a count (upkeep's backfill_words)
    words = models.PositiveIntegerField(null=True, editable=False)

    objects = PostQuerySet.as_manager()

    class Meta:
        # the key decides between posts of the same moment, or a post could be on two pages or on none
        ordering = ["-created_at", "-pk"]
        indexes = [models.Index(fields=["-created_at", "-id"], name="post_newest")]

    def __str__(self):
        return self.title

    def save(self, *args, update_fields=None, **kwargs):
        if update_fields is None or "body" in update_fields:
            self.words = count_words(self.body)
            update_fields = update_fields and {*update_fields, "words"}
        super().save(*args, update_fields=update_fields, **kwargs)

    def get_absolute_url(self):
        return reverse("posts:detail", args=[self.pk])


def attachment_path(attachment, filename):
    """No part of the visitor's file name reaches the disk; it is kept in the row."""
    return f"attachments/{uuid4().hex}"


class Attachment(models.Model):
    post = models.ForeignKey(Post, models.CASCADE, related_name="attachments")
    file = models.FileField(upload_to=attachment_path)
    name = models.CharField(max_length=200)
    size = models.PositiveIntegerField()

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("posts:attachment", args=[self.post_id, self.pk])


class Change(models.Model):
    """One line for each change of a post, written by an async signal's receiver once it is committed."""

    class Verb(models.TextChoices):
        CREATED = "created"
        EDITED = "edited"
        DELETED = "deleted"

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    verb = models.CharField(max_length=10, choices=Verb.choices)
    post_number = models.BigIntegerField()  # no foreign key: the line outlives the post
    title = models.CharField(max_length=MAX_TITLE)

    class Meta:
        ordering = ["-at", "-pk"]

    def __str__(self):
        return f"{self.title} {self.verb}"
