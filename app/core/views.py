from django.conf import settings
from django.http import Http404, JsonResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

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


@require_safe
async def favicon(request):
    """For who asks without having read a page of ours: the admin's pages, and JSON."""
    return redirect(static("core/pergola.svg"))


@never_cache
@require_safe
async def account(request):
    return render(request, "core/account.html", {"user": await request.auser()})


@never_cache
@require_safe
async def account_name(request):
    """For the top of every page, whose own views need not know who is asking."""
    user = await request.auser()
    return JsonResponse({"name": user.get_username() or None})


@require_safe
def source(request, path):
    """A file that a page names, as it runs here. The URL's pattern lets no path out of the project's apps."""
    try:
        text = (settings.BASE_DIR / path).read_text()
    except FileNotFoundError:
        raise Http404 from None
    return render(request, "core/source.html", {"name": f"app/{path}", "text": text})
