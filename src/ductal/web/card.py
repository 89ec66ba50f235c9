"""A run's model card as HTML, for the page about the model."""

from __future__ import annotations

import re
from typing import Any

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_FOLDED = re.compile(r"^</?details>.*$|^<summary>.*$", re.MULTILINE)


def card_html(markdown: str) -> str:
    """The card without its front matter; headings two levels lower, under the page's own.

    Raw HTML in the card stays text, links go to http and https only, and there is no style attribute, which the
    content security policy of the page would refuse.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("js-default")
    body = _FOLDED.sub("", _FRONT_MATTER.sub("", markdown))
    tokens = parser.parse(body)
    for token in tokens:
        _suit(token)
    return str(parser.renderer.render(tokens, parser.options, {}))


def _suit(token: Any) -> None:
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    token.attrs.pop("style", None)
