"""What every page that this toolkit writes must hold to."""

import html.parser


class Page(html.parser.HTMLParser):
    """A page read strictly: each tag is closed in order, and nothing is fetched or run.

    Attributes:
        tags: names and attributes of its elements.
        text: of its elements, but style.
    """

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(page)
        assert self._open == []
        assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in self.tags}
        for _, attributes in self.tags:
            assert not {"src", "href"} & attributes.keys()
            assert attributes.get("xlink:href", "#").startswith("#")
            assert not any(name.startswith("on") for name in attributes)
        outside = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
        assert "http" not in outside and "url(" not in outside.replace("url(#", "")

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data if self._open[-1:] != ["style"] else ""
