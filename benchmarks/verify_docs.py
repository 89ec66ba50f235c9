"""Whether the figures in README and docs are those of the records kept in docs/measured.

    python benchmarks/verify_docs.py

A record is what a command printed or wrote, unchanged (prior.csv: the lines of four calls, without the last column,
a text). `docs/measured/figures.json` says by which command each was made, and which figures it gives: those of a
table's columns, of single cells, or of a sentence, in which {} stands for a number. Every one must be the record's,
rounded as shown. Tables and running text without a measurement (limits, formulas, versions) are listed there, too,
with the reason, so that no new figure is overlooked. To measure again, run the command, put what it gives in the
record's place, and run this. Prints a line for each table and sentence; exit code 1 when a figure differs or is not
listed.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from running_figures import pattern, unlisted

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "measured"
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def tables(document: Path) -> dict[str, list[list[str]]]:
    """The Markdown tables of a file: rows of cells by header line."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    before = ""
    for line in document.read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r"\|[-:| ]+\|", line):
            rows = found.setdefault(before, [])
        elif not line.startswith("|"):
            rows = []
        else:
            rows.append(cells(line))
        before = line
    return found


def cells(line: str) -> list[str]:
    """What is between the bars."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def numbers(text: str) -> list[tuple[float, float]]:
    """(value, half of its last digit) of each number in a cell."""
    found = []
    for word in _NUMBER.findall(text):
        mantissa, _, exponent = word.replace(",", "").partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        found.append((float(word.replace(",", "")), unit / 2))
    return found


def read_record(path: Path, key: str) -> dict[str, dict[str, Any]]:
    """Rows of a CSV or of JSON lines by their `key`; nested values by names with dots."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            return {row[key]: dict(row) for row in csv.DictReader(handle)}
    if path.suffix == ".json":  # each object in it, by its name with dots
        whole = json.loads(path.read_text(encoding="utf-8"))
        return {"": dict(_flat(whole)), **dict(_objects(whole))}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(line[key]): dict(_flat(line)) for line in lines}


def _objects(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in value.items():
        if isinstance(one, dict):
            yield before + name, dict(_flat(one))
            yield from _objects(one, f"{before}{name}.")


def _flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, list):
            yield from _flat({str(number): each for number, each in enumerate(one)}, f"{before}{name}.")
            if one and all(isinstance(each, int | float) for each in one):
                yield from ((f"{before}{name}.min", min(one)), (f"{before}{name}.max", max(one)))
        elif isinstance(one, dict):
            yield from _flat(one, f"{before}{name}.")
        else:
            yield before + name, one


def figure(kept: dict[str, dict[str, Any]], where: str) -> float:
    """A recorded number: "line > field", of JSON also "path.to.it"; "100*" before it makes a share a percentage."""
    factor = 100.0 if where.startswith("100*") else 1.0
    line, _, name = where.removeprefix("100*").rpartition(" > ")
    value = kept[line][name]
    return float("nan") if value in ("", None) else factor * float(value)


def same(shown: list[tuple[float, float]], expected: list[float]) -> bool:
    """Whether the numbers shown begin with the recorded ones, each rounded to the digits shown."""
    return len(shown) >= len(expected) and all(
        abs(value - wanted) <= half * 1.0001 for (value, half), wanted in zip(shown, expected, strict=False)
    )


def compare(table: dict[str, Any]) -> tuple[int, list[str]]:
    """Figures of a table that were compared, and what differs."""
    rows = tables(ROOT / table["document"]).get(table["header"])
    if rows is None:
        return 0, ["the table is not there"]
    if "rows" not in table and "cells" not in table:  # the record is the table
        recorded = tables(MEASURED / table["record"])[table["header"]]
        differing = [f"{mine} is not {kept}" for mine, kept in zip(rows, recorded, strict=False) if mine != kept]
        if len(rows) != len(recorded):
            differing.append(f"{len(rows)} rows, and {len(recorded)} were measured")
        return sum(len(numbers(cell)) for row in rows for cell in row), differing
    kept = read_record(MEASURED / table["record"], table.get("key", "name"))
    header, count, differing = cells(table["header"]), 0, []
    by_name = {row[0]: row for row in rows}
    for name, column, places in _wanted(table):
        shown = numbers(_digits(by_name[name][header.index(column)])) if name in by_name else []
        expected = [figure(kept, place) for place in places]
        # An interval that does not exist is not shown.
        expected = expected[: len(shown)] if len(shown) == 1 and "low" in "".join(places) else expected
        count += len(expected)
        if not same(shown, expected):
            differing.append(f"{name}, {column}: {[value for value, _ in shown]}, measured {expected}")
    return count, differing


def _digits(cell: str) -> str:
    """A cell; yes and no as what JSON's true and false are read as."""
    return {"yes": "1", "no": "0"}.get(cell, cell)


def _wanted(table: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """(row, column, places in the record) of each cell."""
    for name, line in table.get("rows", {}).items():
        for column, fields in table["columns"].items():
            yield name, column, [f"{line} > {field}" for field in fields]
    for name, column, places in table.get("cells", []):
        yield name, column, places


def compare_text(text: dict[str, Any]) -> tuple[int, list[str]]:
    """The same of a sentence, which must be in the document once."""
    document = " ".join((ROOT / text["document"]).read_text(encoding="utf-8").split())
    found = re.findall(pattern(text["text"]), document)
    if len(found) != 1:
        return 0, [f"found {len(found)} times"]
    shown = [one for word in ([found[0]] if isinstance(found[0], str) else found[0]) for one in numbers(word)]
    kept = read_record(MEASURED / text["record"], text.get("key", "name"))
    expected = [figure(kept, place) for place in text["values"]]
    ok = len(shown) == len(expected) and same(shown, expected)
    return len(expected), [] if ok else [f"{[value for value, _ in shown]}, measured {expected}"]


def overlooked(known: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Tables with figures, and figures in running text, for which there is neither a record nor a reason."""
    listed = {(table["document"], table["header"]) for table in [*known["tables"], *known["not_measured"]]}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        name = path.relative_to(ROOT).as_posix()
        for header, rows in tables(path).items():
            if (name, header) not in listed and any(numbers(cell) for row in rows for cell in row):
                yield f"{name}: {header[:70]}"
        texts = [one["text"] for one in known["texts"] if one["document"] == name]
        stated = [one for one in known["stated"] if one["document"] == name]
        fragments = [text for one in stated for text in one.get("texts", [])]
        whole = [heading for one in stated for heading in one.get("sections", [])]
        document = path.read_text(encoding="utf-8")
        yield from (f"{name}: {place}" for place in unlisted(document, texts, fragments, whole))


def main() -> None:
    """See the module."""
    known = json.loads((MEASURED / "figures.json").read_text(encoding="utf-8"))
    wrong = 0
    for entry in [*known["tables"], *known["texts"]]:
        count, differing = compare(entry) if "header" in entry else compare_text(entry)
        wrong += len(differing)
        print(f"{entry['document']}: {entry.get('header', entry.get('text'))[:70]}: {count}, {len(differing)} differ")
        for line in differing:
            print(f"    {line}")
    for place in overlooked(known):
        wrong += 1
        print(f"{place}: neither a record nor a reason why there is none")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
