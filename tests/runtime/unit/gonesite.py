"""A project with one view, which writes a line into RAN and waits until the file GO is there.

Each request writes a line into BEGAN, and one into ENDED. No call hands its slot on, so that as many run at a
time as PERGOLA_THREADS says.
"""

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
from pergola_runtime import threads  # noqa: E402

threads.HANDOFF = 3600  # seconds


def write(name):
    with Path(os.environ[name]).open("a") as file:
        file.write(f"{name}\n")


def waits(request):
    write("RAN")
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.01)
    return HttpResponse("served")


urlpatterns = [path("", waits)]
django = get_asgi_application()


async def application(scope, receive, send):
    write("BEGAN")
    try:
        await django(scope, receive, send)
    finally:
        write("ENDED")
