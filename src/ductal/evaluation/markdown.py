"""Markdown from a template, in which names that come from files cannot become markup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of ``templates/``; every value is escaped by `plain` unless marked ``|raw``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ductal.evaluation", "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=plain,
    )
    environment.filters["raw"] = Markup
    return environment.get_template(template).render(context)


def plain(value: Any) -> Any:
    """A value on one line, in which nothing starts HTML, a link or another cell of a table."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    for character, instead in (("<", "&lt;"), ("|", r"\|"), ("[", r"\["), ("]", r"\]")):
        value = value.replace(character, instead)
    return " ".join(value.split())
