"""What a browser makes of a page, for tests."""

import html.parser
import re


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def shown(self):
        """Its text without style and script."""
        return re.sub(r"\s+", " ", " ".join(word for word in self.words if "{ " not in word))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)
