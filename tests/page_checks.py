"""What a page of fpsim report has to be, as a parser sees it: whole, self-contained, with names that resolve."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}
# Attributes that make a browser load something, or go somewhere.
LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "formaction", "background", "cite"}
NAMING = ("aria-labelledby", "aria-describedby", "for", "headers")


class Page(HTMLParser):
    """Parses a page and collects what is wrong with it in ``faults``."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.ids, self.references = [], [], [], []
        self.text, self.elements, self.styles, self.scripts = [], [], [], []
        self.feed(content)
        self.close()
        self.faults += [f"<{name}> is never closed" for name in self.open]
        self.faults += [f"id {x!r} twice" for x in sorted({x for x in self.ids if self.ids.count(x) > 1})]
        self.faults += [f"#{x} is not there" for x in self.references if x not in set(self.ids)]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attribute(tag, name, value or "")

    def attribute(self, tag, name, value):
        if name == "id":
            self.ids.append(value)
        if name in LOADING:
            self.faults += [] if value.startswith("#") else [f"<{tag} {name}={value!r}> leaves the page"]
            self.references.append(value.removeprefix("#"))
        if name in NAMING:
            self.references += value.split()
        if name.startswith("on") or "javascript:" in value or "//" in value:
            self.faults.append(f"<{tag} {name}={value!r}>")
        self.references += re.findall(r"url\(#([^)]+)\)", value)
        if re.search(r"url\((?!#)", value):
            self.faults.append(f"<{tag} {name}={value!r}> loads something")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        kept = {"style": self.styles, "script": self.scripts}.get(self.open[-1] if self.open else "", self.text)
        kept.append(data)

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())
