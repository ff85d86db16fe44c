"""The admin is sync code, and stays so: Django runs it in a thread, where relations may be loaded lazily."""

from django.contrib import admin

from posts.models import Attachment, Author, Change, Post, Tag


class AttachmentInline(admin.TabularInline):
    model = Attachment
    fields = readonly_fields = ["name", "size"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj):
        return False


@admin.register(Post)
class PostAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "created_at", "views"]
    list_select_related = ["author"]
    list_filter = ["created_at"]
    search_fields = ["title", "body"]
    autocomplete_fields = ["author", "tags"]
    date_hierarchy = "created_at"
    inlines = [AttachmentInline]


@admin.register(Author)
class AuthorAdmin(admin.ModelAdmin):
    list_display = ["name", "user"]
    list_select_related = ["user"]
    search_fields = ["name", "user__username"]
    autocomplete_fields = ["user"]


@admin.register(Tag)
class TagAdmin(admin.ModelAdmin):
    search_fields = ["name"]


@admin.register(Change)
class ChangeAdmin(admin.ModelAdmin):
    list_display = ["at", "verb", "title"]
    list_filter = ["verb"]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
