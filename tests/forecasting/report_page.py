"""A report as a person reads it: its tables, cards and sentences, without any knowledge of how it is made."""

import re
from html.parser import HTMLParser

READ = ("caption", "th", "td", "dt", "dd", "p", "li")


class ReportPage(HTMLParser):
    """tables: caption -> rows of cell texts, without the heading row. cards: label -> the lines below it.

    sentences: the texts of all paragraphs and list items. data: the JSON that the chart is drawn from.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.cards: dict[str, list[str]] = {}
        self.sentences: list[str] = []
        self.data = ""
        self._open: list[str] = []
        self._text: dict[str, str] = {}
        self._caption = self._label = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in READ or (tag == "script" and ("id", "data") in attrs):
            self._text[tag] = ""
            self._open.append(tag)
        elif tag == "tr" and self._caption:
            self.tables[self._caption].append([])

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self._text[tag] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._caption] = [row for row in self.tables[self._caption] if row][1:]
            self._caption = ""
        if tag not in self._open:
            return
        self._open.remove(tag)
        text = re.sub(r"\s+", " ", self._text[tag]).strip()
        if tag == "caption":
            self._caption, self.tables[text] = text, []
        elif tag in ("th", "td") and self._caption:
            self.tables[self._caption][-1].append(text)
        elif tag == "dt":
            self._label, self.cards[text] = text, []
        elif tag == "dd":
            self.cards[self._label].append(text)
        elif tag == "script":
            self.data = self._text[tag]
        else:
            self.sentences.append(text)

    def card(self, beginning: str) -> list[str]:
        """The lines of the one card whose label begins so."""
        [lines] = [lines for label, lines in self.cards.items() if label.startswith(beginning)]
        return lines


def number(text: str) -> float:
    """The number in a text such as -$1,234.50, +$310, 12.5% (0.125) or 1,180 days."""
    found = re.search(r"([+-]?)\$?([\d,]+(?:\.\d+)?)(%?)", text)
    assert found, text
    sign, digits, percent = found.groups()
    value = float(digits.replace(",", "")) * (-1 if sign == "-" else 1)
    return value / 100 if percent else value
