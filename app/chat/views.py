from django.contrib.auth.decorators import login_required
from django.http import Http404
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from chat import services
from chat.forms import RoomForm
from chat.models import MAX_TEXT, Room


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
async def rooms(request):
    user = await request.auser()
    form = RoomForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            return redirect(await services.make_room(user, form.cleaned_data["name"]))
        except services.RefusedError as error:
            form.add_error("name", str(error))
    context = {"form": form, "rooms": await services.rooms(), "user": user}
    return render(request, "chat/rooms.html", context, status=400 if form.is_bound else 200)


@require_safe
@login_required
async def room(request, slug):
    try:
        found = await services.get(slug)
    except Room.DoesNotExist:
        raise Http404 from None
    context = {"room": found, "max_text": MAX_TEXT, "user": await request.auser()}
    return render(request, "chat/room.html", context)
