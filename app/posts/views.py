from functools import wraps
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.files.storage import default_storage
from django.http import Http404, HttpResponseBadRequest, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from posts import services
from posts.forms import AttachmentForm, ListForm, PostForm
from posts.models import Attachment, Post


def missing_is_404(view):
    """Also where somebody else deletes the post while this request is on its way."""

    @wraps(view)
    async def wrapper(*args, **kwargs):
        try:
            return await view(*args, **kwargs)
        except Post.DoesNotExist:
            raise Http404 from None

    return wrapper


@require_safe
async def posts(request):
    form = ListForm(request.GET)
    if not form.is_valid():
        return HttpResponseBadRequest(form.errors.as_text(), content_type="text/plain; charset=utf-8")
    parameters = form.parameters()
    page = await services.page(form.cleaned_data["page"] or 1, **parameters)
    given = {name: value for name, value in parameters.items() if value and value != services.NEWEST}
    context = {
        "page": page,
        "parameters": parameters,
        "rest_of_query": f"&{urlencode(given)}" if given else "",
        "changes": await services.latest_changes(),
        "user": await request.auser(),
    }
    return render(request, "posts/list.html", context)


@require_safe
@missing_is_404
async def detail(request, number):
    post = await services.get(number)
    if request.method == "GET":
        await services.seen(post)
    return await page_of(request, post, AttachmentForm())


async def page_of(request, post, form, status=200):
    user = await request.auser()
    context = {"post": post, "form": form, "user": user, "may_change": services.may_change(user, post)}
    return render(request, "posts/detail.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
async def create(request):
    form = PostForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        post = await services.create(await request.auser(), **form.cleaned_data)
        messages.success(request, "Saved.")
        return redirect(post)
    return await form_page(request, form)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@missing_is_404
async def edit(request, number):
    post = await services.get(number)
    user = await request.auser()
    services.require_may_change(user, post)
    tags = ", ".join([tag.name async for tag in post.tags.all()])  # prefetched: async for without a query
    initial = {"title": post.title, "body": post.body, "tags": tags}
    form = PostForm(request.POST if request.method == "POST" else None, initial=initial)
    if form.is_valid():
        post = await services.edit(user, post, **form.cleaned_data)
        messages.success(request, "Saved.")
        return redirect(post)
    return await form_page(request, form, post)


async def form_page(request, form, post=None):
    context = {"form": form, "post": post, "user": await request.auser()}
    return render(request, "posts/form.html", context, status=400 if form.is_bound else 200)


@require_POST
@login_required
@missing_is_404
async def delete(request, number):
    await services.delete(await request.auser(), await services.get(number))
    messages.success(request, "Deleted.")
    return redirect("posts:list")


@require_POST
@login_required
@missing_is_404
async def attach(request, number):
    post = await services.get(number)
    user = await request.auser()
    services.require_may_change(user, post)
    form = AttachmentForm(request.POST, request.FILES)
    if form.is_valid():
        try:
            await services.attach(user, post, form.cleaned_data["file"])
            return redirect(post)
        except services.TooManyError as error:
            form.add_error("file", str(error))
    return await page_of(request, post, form, status=400)


@require_POST
@login_required
@missing_is_404
async def detach(request, number, attachment_number):
    post = await services.get(number)
    found = next((found for found in post.attachments.all() if found.pk == attachment_number), None)
    if found is None:
        raise Http404
    await services.detach(await request.auser(), post, found)
    return redirect(post)


@require_safe
async def attachment(request, number, attachment_number):
    try:
        found = await Attachment.objects.aget(pk=attachment_number, post_id=number)
        file = await sync_to_async(default_storage.open, thread_sensitive=False)(found.file.name)
    except (Attachment.DoesNotExist, FileNotFoundError):
        raise Http404 from None
    await services.give_connection_back()
    # Never shown in the page's own origin, whatever is in it: saved, and as no type that a browser would run.
    headers = {
        "Content-Disposition": content_disposition_header(as_attachment=True, filename=found.name),
        "Content-Length": str(found.size),
        "Content-Security-Policy": "sandbox",
    }
    if request.method == "HEAD":
        file.close()
        return StreamingHttpResponse(content_type="application/octet-stream", headers=headers)
    return StreamingHttpResponse(
        services.chunks(file), content_type="application/octet-stream", headers=headers
    )
