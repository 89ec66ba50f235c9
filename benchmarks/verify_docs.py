"""Whether the figures in README and docs are those of the records kept in docs/measured.

    python benchmarks/verify_docs.py

A record is what a command printed or wrote, unchanged (prior.csv: the lines of four calls, without the last column, a
text); `docs/measured/tables.json` says which table has which record,
by which command it was made, and which columns it gives. Every number in such a column must be the record's, rounded
as shown. To measure again, run the command, put what it gives in the record's place, and run this. Prints a line for
each table, also for those without a record, and ends with exit code 1 when a figure differs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        return dict(_objects(json.loads(path.read_text(encoding="utf-8"))))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(line[key]): dict(_flat(line)) for line in lines}


def _objects(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in value.items():
        if isinstance(one, dict):
            yield before + name, dict(_flat(one))
            yield from _objects(one, f"{before}{name}.")


def _flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, dict):
            yield from _flat(one, f"{before}{name}.")
        else:
            yield before + name, one


def compare(table: dict[str, Any]) -> tuple[int, list[str]]:
    """Figures compared, and what differs."""
    rows = tables(ROOT / table["document"]).get(table["header"])
    if rows is None:
        return 0, ["the table is not there"]
    record = MEASURED / table["record"]
    if "rows" not in table:  # the record is the table
        recorded = tables(record)[table["header"]]
        differing = [f"{mine} is not {kept}" for mine, kept in zip(rows, recorded, strict=False) if mine != kept]
        if len(rows) != len(recorded):
            differing.append(f"{len(rows)} rows, and {len(recorded)} were measured")
        return sum(len(numbers(cell)) for row in rows for cell in row), differing
    kept = read_record(record, table.get("key", "name"))
    header, count, differing = cells(table["header"]), 0, []
    by_name = {row[0]: row for row in rows}
    for name, source in table["rows"].items():
        line, star = (source, "") if isinstance(source, str) else source
        for column, fields in table["columns"].items():
            shown = numbers(by_name[name][header.index(column)]) if name in by_name else []
            values = [kept[line][field.replace("*", star)] for field in fields]
            expected = [float("nan" if value in ("", None) else value) for value in values]
            # An interval that does not exist is not shown.
            expected = expected[: len(shown)] if len(shown) == 1 and "low" in "".join(fields) else expected
            count += len(expected)
            same = len(shown) >= len(expected) and all(
                abs(value - wanted) <= half * 1.0001 for (value, half), wanted in zip(shown, expected, strict=False)
            )
            if not same:
                differing.append(f"{name}, {column}: {[value for value, _ in shown]}, measured {expected}")
    return count, differing


def main() -> None:
    """See the module."""
    known = json.loads((MEASURED / "tables.json").read_text(encoding="utf-8"))
    wrong = 0
    for table in known:
        count, differing = compare(table)
        wrong += len(differing)
        print(f"{table['document']}: {table['header'][:60]}: {count} figures, {len(differing)} differ")
        for line in differing:
            print(f"    {line}")
    recorded = {(table["document"], table["header"]) for table in known}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for header, rows in tables(path).items():
            name = path.relative_to(ROOT).as_posix()
            if (name, header) not in recorded and sum(len(numbers(cell)) for row in rows for cell in row) > 5:
                print(f"{name}: {header[:60]}: no record")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
