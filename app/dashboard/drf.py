"""The pair of weather and restaurants as an async view of Django REST framework, over aiohttp.

REST framework's own APIView answers 500 to `async def get`; adrf's awaits it.
"""

from adrf.views import APIView
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from api import problems
from dashboard.calls import together
from dashboard.forms import DashboardForm

FIXED = {"mode": "async", "count": 2, "client": "aiohttp"}


def on_exception(error, context):
    if isinstance(error, APIException):
        return problems.problem(error.status_code, str(error.detail))
    return None


class WeatherAndRestaurants(APIView):
    authentication_classes = permission_classes = []  # open to all, and asks for no session
    renderer_classes = [JSONRenderer]

    def get_exception_handler(self):
        return on_exception

    async def get(self, request):
        query = request.query_params.copy()
        query.update(FIXED)
        form = DashboardForm(query)
        if not form.is_valid():
            return problems.invalid(
                problems.in_query(name, text) for name, texts in form.errors.items() for text in texts
            )
        elapsed, calls = await together(form.calls(), over="aiohttp")
        return Response(
            {
                "elapsed": elapsed,
                "partial": any(call["outcome"] != "ok" for call in calls),
                **{call["service"]: call for call in calls},
            }
        )
