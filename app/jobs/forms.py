from django import forms

from jobs.models import Job


class JobForm(forms.Form):
    kind = forms.ChoiceField(choices=Job.Kind)
    text = forms.CharField(max_length=100)
    key = forms.UUIDField()
