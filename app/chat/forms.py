from django import forms

from chat.models import MAX_NAME


class RoomForm(forms.Form):
    name = forms.CharField(max_length=MAX_NAME, help_text="한글 too.")
