import asyncio
import time

from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from lab.parameters import choice, clear_refusals, number
from lab.work import interval, place
from legacy.bridge import REPORT, SEND
from legacy.library import WrongThreadError

# Nobody's: Ofcom keeps this range for drama.
NUMBERS = [f"+44 7700 9000{last:02}" for last in range(1, 9)]
TEXT = "Your table is ready. 자리가 준비되었습니다."


@require_safe
async def index(request):
    return render(request, "legacy/index.html")


@never_cache
@require_safe
@clear_refusals
async def data(request):
    mode = choice(request, "mode", "sensitive", SEND)
    count = number(request, "count", 3, 1, len(NUMBERS), kind=int)
    seconds = number(request, "seconds", 0.3, 0, 1)
    began = time.monotonic()
    # All of them are waited for also where one fails: a thread cannot be cancelled, and the report's has a
    # database connection.
    messages, report = await asyncio.gather(
        SEND[mode](NUMBERS[:count], TEXT, seconds), REPORT[mode](seconds), return_exceptions=True
    )
    answer = {"mode": mode, "event_loop": place()} | interval(began)
    if isinstance(report, BaseException):
        raise report
    if isinstance(messages, WrongThreadError):
        return JsonResponse(answer | {"error": f"WrongThreadError: {messages}", "report": report})
    if isinstance(messages, BaseException):
        raise messages
    used = {call["thread"] for call in [*messages, report]}
    return JsonResponse(answer | {"threads": len(used), "messages": messages, "report": report})
