from django.contrib import admin

from chat.models import Message, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ["name", "made_by", "made_at", "last"]
    list_select_related = ["made_by"]
    search_fields = ["name"]
    readonly_fields = ["slug", "made_by", "made_at", "last"]

    def has_add_permission(self, request):
        return False


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    """Deleting is all that can be done: what clients have seen keeps its number and its words."""

    list_display = ["room", "number", "author", "at", "text"]
    list_select_related = ["room", "author"]
    list_filter = ["at"]
    search_fields = ["text"]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
