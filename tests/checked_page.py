"""Pages read as a browser would, strictly."""

from html.parser import HTMLParser

VOID = {"meta", "br", "wbr", "img", "hr", "link", "col"}


class Checked(HTMLParser):
    """Collects text and tags, and fails on tags that do not close in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text.append(data)
