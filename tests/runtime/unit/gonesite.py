"""A project with one view, which computes for 50 ms and then writes a line into RAN."""

import os
import time
from pathlib import Path

from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for the tests alone", MIDDLEWARE=[]
)

from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


def compute(request):
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    with Path(os.environ["RAN"]).open("a") as ran:
        ran.write("ran\n")
    return HttpResponse("computed")


urlpatterns = [path("", compute)]
application = get_asgi_application()
