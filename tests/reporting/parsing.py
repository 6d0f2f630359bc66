"""What a page holds, by parsing it."""

from html.parser import HTMLParser


VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds: its tables' cells, its pictures, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.addresses = [], [], []
        self.feed(text)
        assert not self.open

    @property
    def is_self_contained(self):
        return all(address.startswith("data:image/png;base64,") for address in self.addresses)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
