"""The figures in the running text of a document, outside code, tables and headings.

A figure is a number with decimals or with a comma for thousands, a percentage, or a number with a unit of time, size
or speed. Numbers of publications and of addresses are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

NUMBER = r"([+-]?\d[\d,]*(?:\.\d+)?)"
_TIME, _SIZE, _SPEED = "s|ms|min|seconds?|minutes?|hours?|days?", "kB|MB|MiB|GB|GiB|TB", "images/s|patches/s|GFLOP/s"
_UNIT = rf"(?:%|(?:{_TIME}|{_SIZE}|{_SPEED}|x(?! ?\d)|times)\b)"
_FIGURE = re.compile(rf"(?<![\w.,/-])[+-]?(?:\d+\.\d+|\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?= ?{_UNIT}))(?![\w/]*\w)")
_NONE = re.compile(r"`[^`]*`|\]\([^)]*\)|arXiv[: ][\d., and]+|10\.\d{4,}/\S+|https?://\S+")
_SOURCES = ("References", "Sources")


def sections(document: str) -> Iterator[tuple[str, str]]:
    """(heading, running text as one line) of each section but the list of publications."""
    heading, code = "", False
    lines: list[str] = []
    for line in [*document.splitlines(), "# end"]:
        if line.startswith("```"):
            code = not code
        elif not code and line.startswith("#"):
            if heading not in _SOURCES:
                yield heading, " ".join(" ".join(lines).split())
            heading, lines = line.lstrip("# "), []
        elif not code and not line.startswith("|"):
            lines.append(line)


def pattern(text: str) -> str:
    """The regular expression of a sentence in which {} stands for a number."""
    return NUMBER.join(map(re.escape, text.split("{}")))


def unlisted(document: str, texts: Iterable[str], stated: Iterable[str], whole: Iterable[str]) -> Iterator[str]:
    """Figures that are in no text of `texts` (with {}) or `stated`, nor in a section of `whole`, with their place."""
    known = [pattern(text) for text in texts] + [re.escape(text) for text in stated]
    whole = set(whole)
    for heading, text in sections(document):
        if heading in whole:
            continue
        covered = [found.span() for found in _NONE.finditer(text)]
        covered += [found.span() for one in known for found in re.finditer(one, text)]
        for found in _FIGURE.finditer(text):
            if not any(start <= found.start() < end for start, end in covered):
                yield f"{text[max(0, found.start() - 40) : found.end() + 25]!r}"
