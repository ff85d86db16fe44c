"""Plain forms: a ModelForm's validation queries, which in async code it must not."""

import re
import unicodedata

from django import forms

from posts.models import MAX_BODY, MAX_TAG, MAX_TAGS, MAX_TITLE, TAG_PATTERN
from posts.services import MAX_ATTACHMENT, MAX_PAGE, MAX_SEARCH, NEWEST, ORDERINGS


def normal_tag(name):
    """As it is kept: one spelling for the two ways in which Unicode writes a Hangul syllable or an umlaut.

    Raises ValueError with a sentence.
    """
    if len(name) > MAX_TAG or not re.fullmatch(TAG_PATTERN, name):
        raise ValueError(f"A tag is one word of up to {MAX_TAG} characters.")
    return unicodedata.normalize("NFC", name).lower()


def normal_tags(names):
    """Without repetitions; raises ValueError with a sentence."""
    if len(names) > MAX_TAGS:
        raise ValueError(f"At most {MAX_TAGS} tags.")
    return list(dict.fromkeys(map(normal_tag, names)))


class PostForm(forms.Form):
    title = forms.CharField(max_length=MAX_TITLE)
    body = forms.CharField(max_length=MAX_BODY, widget=forms.Textarea(attrs={"rows": 10}))
    tags = forms.CharField(
        required=False, max_length=MAX_TAGS * (MAX_TAG + 2), help_text="Separated by commas, 한글 too."
    )

    def clean_tags(self):
        names = [name.strip() for name in self.cleaned_data["tags"].split(",") if name.strip()]
        try:
            return normal_tags(names)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None


class AttachmentForm(forms.Form):
    file = forms.FileField(max_length=200)

    def clean_file(self):
        file = self.cleaned_data["file"]
        if file.size > MAX_ATTACHMENT:
            raise forms.ValidationError(f"At most {MAX_ATTACHMENT // 2**20} MiB.")
        if not file.name.isprintable():
            raise forms.ValidationError("The file's name has characters that cannot be shown.")
        return file


class ListForm(forms.Form):
    """The list's query parameters."""

    page = forms.IntegerField(required=False, min_value=1, max_value=MAX_PAGE)
    author = forms.CharField(required=False, max_length=150)
    tag = forms.CharField(required=False, max_length=MAX_TAG)
    search = forms.CharField(required=False, max_length=MAX_SEARCH)
    ordering = forms.ChoiceField(required=False, choices=[(name, name) for name in ORDERINGS])

    def clean_tag(self):
        try:
            return self.cleaned_data["tag"] and normal_tag(self.cleaned_data["tag"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None

    def parameters(self):
        values = self.cleaned_data
        return {
            "author": values["author"],
            "tag": values["tag"],
            "search": values["search"],
            "ordering": values["ordering"] or NEWEST,
        }
