from django import forms

from dashboard.calls import OVER, SERVICES, TOGETHER, Call

MAX_COUNT = 10
MAX_DELAY = 5
MAX_SECONDS = 25  # one after another: less than a restart leaves to a running request


def choices(names):
    return [(name, name) for name in names]


class DashboardForm(forms.Form):
    """What the page offers and /dashboard/data takes. Everything has a default and a bound."""

    mode = forms.ChoiceField(choices=choices(["async", "sync"]), initial="async", label="mode")
    count = forms.IntegerField(min_value=1, max_value=MAX_COUNT, initial=3, label="calls")
    delay = forms.CharField(max_length=100, initial="1", label="seconds each")
    jitter = forms.FloatField(min_value=0, max_value=1, initial=0, label="jitter, s")
    failures = forms.FloatField(min_value=0, max_value=1, initial=0, label="failing, 0 to 1")
    timeout = forms.FloatField(min_value=0.1, max_value=10, initial=10, label="timeout, s")
    client = forms.ChoiceField(choices=choices(OVER), initial="httpx", label="client")
    by = forms.ChoiceField(choices=choices(TOGETHER), initial="gather", label="together by")

    def __init__(self, query=None):
        if query is not None:
            query = query.dict()
            if "count" not in query and "," in query.get("delay", ""):
                query["count"] = query["delay"].count(",") + 1
            query = {name: field.initial for name, field in self.base_fields.items()} | query
        super().__init__(query, auto_id="%s")

    def clean_delay(self):
        try:
            delays = [float(text) for text in self.cleaned_data["delay"].split(",")]
        except ValueError:
            raise forms.ValidationError("A number or several with commas between: 1 or 1,0.5,2.") from None
        if not all(0 <= delay <= MAX_DELAY for delay in delays):
            raise forms.ValidationError(f"Each from 0 to {MAX_DELAY}.")
        return delays

    def clean(self):
        cleaned = super().clean()
        if self.errors:
            return cleaned
        if len(cleaned["delay"]) not in (1, cleaned["count"]):
            self.add_error("delay", "One number for all calls, or one for each.")
        elif cleaned["mode"] == "sync" and self.seconds() > MAX_SECONDS:
            self.add_error("delay", f"One after another these may take more than {MAX_SECONDS} seconds.")
        return cleaned

    def seconds(self):
        return sum(min(call.delay + call.jitter, call.timeout) for call in self.calls())

    def calls(self):
        wanted = self.cleaned_data
        delays = wanted["delay"] * (wanted["count"] if len(wanted["delay"]) == 1 else 1)
        return [
            Call(
                SERVICES[number % len(SERVICES)],
                delay,
                wanted["jitter"],
                wanted["failures"],
                wanted["timeout"],
            )
            for number, delay in enumerate(delays)
        ]
