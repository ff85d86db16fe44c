"""``shell_words``: a command line -> its words, as a shell splits them (quotes kept together)."""

import shlex


class FilterModule:
    def filters(self):
        return {"shell_words": shlex.split}
