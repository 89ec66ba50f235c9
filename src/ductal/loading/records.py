"""JSON records and Parquet tables of run folders, which may come from somebody else, read within bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

MAX_JSON_BYTES = 64 * 2**20
MAX_TABLE_BYTES = 2**30  # of the file
MAX_TABLE_MEMORY = 4 * 2**30
MAX_ROWS, MAX_COLUMNS = 20_000_000, 500
MAX_TEXT_BYTES = 4096  # of one value: names, places and reasons are in tables
_BATCH = 16_384


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: a pipe or device, not UTF-8, not JSON, no object, nested too deeply, or too large.
    """
    if path.exists() and not path.is_file():  # reading a pipe could wait for ever
        raise ValueError(f"{path.name} is no file")
    with path.open("rb") as handle:
        content = handle.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of a Parquet file as a table.

    Args:
        path: as pandas writes it.
        columns: which; what else is in the file is not read.

    Raises:
        OSError: it cannot be read, or text in it is in an encoding that Arrow cannot give as distinct values.
        ValueError: not Parquet, damaged, without one of the columns, too large, with a text longer than
            `MAX_TEXT_BYTES`, or a column is neither numbers nor text nor yes and no.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError(f"the file is larger than {MAX_TABLE_BYTES >> 20} MiB")
        # Text is read as the distinct values and their numbers, so that a long one that all rows share is there once
        # while it is looked at; Arrow refuses then what repeats parts of the text before (DELTA_BYTE_ARRAY). What the
        # footer says of a column (`row_group(0).column(0)`) is not asked: Arrow 26 aborts the process where it is
        # damaged, while reading raises an error.
        with pq.ParquetFile(path, read_dictionary=list(columns)) as file:
            _check_shape(file.metadata, file.schema_arrow, columns)
            # Pandas takes 8 bytes for many values that Arrow has in a bit or none.
            batches, taken = [], 8 * file.metadata.num_rows * len(columns)
            for packed in file.iter_batches(_BATCH, columns=list(columns)):
                # Text that is no UTF-8 would be found where it is used, and a number without a value never.
                packed.validate(full=True)
                batch = pa.RecordBatch.from_arrays(list(map(_plain, packed.columns)), names=packed.schema.names)
                taken += batch.nbytes
                if taken > MAX_TABLE_MEMORY:
                    raise ValueError(f"it takes more than {MAX_TABLE_MEMORY >> 30} GiB once unpacked")
                batches.append(batch)
            schema = batches[0].schema if batches else file.schema_arrow
        # What pandas has noted in the file could make a column the index.
        return pa.Table.from_batches(batches, schema=schema).select(list(columns)).to_pandas(ignore_metadata=True)
    except (OSError, ValueError):
        raise
    except Exception as error:  # Arrow and pandas have many kinds for a damaged file
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _plain(column: Any) -> Any:
    """A column of a batch with its text written out, of which no value may be long."""
    import pyarrow.compute as pc
    from pyarrow import types

    if not types.is_dictionary(column.type):
        return column
    longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise ValueError(f"a text in it has {longest} bytes, more than {MAX_TEXT_BYTES}")
    return column.dictionary_decode()


def _check_shape(metadata: Any, schema: Any, columns: Sequence[str]) -> None:
    from pyarrow import types

    if metadata.num_rows > MAX_ROWS or len(schema) > MAX_COLUMNS:
        raise ValueError(f"{metadata.num_rows} rows of {len(schema)} columns are more than a cohort has")
    missing = sorted(set(columns) - set(schema.names))
    if missing:
        raise ValueError(f"it lacks the columns {', '.join(missing)}")
    text = (types.is_string, types.is_large_string)
    plain = (types.is_integer, types.is_floating, types.is_boolean, *text)
    for name in columns if metadata.num_rows else ():  # without rows, a column of text has no type
        kind = schema.field(name).type
        packed = types.is_dictionary(kind)  # as text is read here
        if not any(is_kind(kind.value_type if packed else kind) for is_kind in (text if packed else plain)):
            raise ValueError(f"its column {name} holds {kind}, not numbers or text")
