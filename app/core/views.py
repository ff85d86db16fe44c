from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from core.models import Visit


@require_http_methods(["GET", "HEAD"])
async def home(request):
    return render(request, "core/home.html")


@require_http_methods(["GET", "HEAD", "POST"])
async def visits(request):
    if request.method == "POST":
        await Visit.objects.acreate()
        return redirect("visits")
    latest = [visit async for visit in Visit.objects.all()[:10]]
    return render(request, "core/visits.html", {"visits": latest, "total": await Visit.objects.acount()})
