"""A cohort whose files disagree is refused with what to do; its fingerprint follows the content alone."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ductal.data.cohort import COLUMNS, Cohort, CohortInfo, fingerprint_of
from ductal.errors import DataError
from ductal.loading import records
from ductal.loading.records import MAX_JSON_BYTES, read_table


def write_cohort(folder: Path, n: int = 4) -> Path:
    folder.mkdir()
    table = pd.DataFrame(
        {
            "patch_id": [f"p{i}" for i in range(n)],
            "patient": ["a", "a", "b", "b"][:n],
            "x": np.arange(n, dtype=np.int32),
            "y": np.zeros(n, np.int32),
            "label": np.array([0, 1, 0, 1], np.int8)[:n],
            "sha1": [f"{i:040x}" for i in range(n)],
            "selected": np.ones(n, bool),
        }
    )
    info = CohortInfo(
        name="t", source_kind="zip", synthetic=False, has_patients=True, fingerprint=fingerprint_of(table),
        n_patches=n, n_patients=2, n_positive=2, quarantined={}, selection={"seed": 1}, notes=[],
        ductal_version="0", created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    table.to_parquet(folder / "patches.parquet")
    empty = pd.DataFrame(columns=["name", "patient", "label", "reason", "detail"])
    empty.to_parquet(folder / "quarantine.parquet")
    np.save(folder / "patches.npy", np.zeros((n, 50, 50, 3), np.uint8))
    (folder / "cohort.json").write_text(info.model_dump_json())
    return folder


def test_a_whole_cohort_opens(tmp_path: Path) -> None:
    cohort = Cohort.open(write_cohort(tmp_path / "c"))
    assert len(cohort) == 4
    assert cohort.labels.tolist() == [0, 1, 0, 1]
    assert cohort.labels.dtype == np.int8
    assert cohort.groups.tolist() == ["a", "a", "b", "b"]
    assert isinstance(cohort.pixels, np.memmap)


def spoil_pixels(folder: Path) -> None:
    np.save(folder / "patches.npy", np.zeros((3, 50, 50, 3), np.uint8))


def spoil_dtype(folder: Path) -> None:
    np.save(folder / "patches.npy", np.zeros((4, 50, 50, 3), np.float32))


def spoil_shape(folder: Path) -> None:
    np.save(folder / "patches.npy", np.zeros((4, 32, 32, 3), np.uint8))


def cut_pixels(folder: Path) -> None:
    (folder / "patches.npy").write_bytes((folder / "patches.npy").read_bytes()[:1000])


def cut_table(folder: Path) -> None:
    (folder / "patches.parquet").write_bytes(b"PAR1")


def spoil_labels(folder: Path) -> None:
    table = pd.read_parquet(folder / "patches.parquet")
    table["label"] = 1 - table["label"].clip(upper=0)
    table.to_parquet(folder / "patches.parquet")


def drop_column(folder: Path) -> None:
    pd.read_parquet(folder / "patches.parquet").drop(columns="sha1").to_parquet(folder / "patches.parquet")


def without_a_value(folder: Path) -> None:
    table = pd.read_parquet(folder / "patches.parquet").astype({"selected": "boolean"})
    table.loc[1, "selected"] = pd.NA
    table.to_parquet(folder / "patches.parquet")


def without_places(folder: Path) -> None:
    table = pd.read_parquet(folder / "patches.parquet").astype({"x": float})
    table.loc[1, "x"] = np.nan
    table.to_parquet(folder / "patches.parquet")


def without_type(folder: Path) -> None:
    pd.read_parquet(folder / "patches.parquet").assign(sha1=None).to_parquet(folder / "patches.parquet")


def lengthen_info(folder: Path) -> None:
    with (folder / "cohort.json").open("ab") as handle:
        handle.write(b" " * MAX_JSON_BYTES)  # JSON all the same


def repeat_id(folder: Path) -> None:
    pd.read_parquet(folder / "patches.parquet").assign(patch_id="p").to_parquet(folder / "patches.parquet")


def spoil_info(folder: Path) -> None:
    (folder / "cohort.json").write_text(json.dumps({"name": "t"}))


def lose_quarantine(folder: Path) -> None:
    (folder / "quarantine.parquet").unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_pixels,
        spoil_dtype,
        spoil_shape,
        cut_pixels,
        cut_table,
        spoil_labels,
        drop_column,
        without_a_value,
        without_places,
        without_type,
        lengthen_info,
        repeat_id,
        spoil_info,
        lose_quarantine,
    ],
)
def test_files_that_disagree_are_refused(tmp_path: Path, spoil) -> None:
    folder = write_cohort(tmp_path / "c")
    spoil(folder)
    with pytest.raises(DataError, match=r"prepare` again"):
        Cohort.open(folder)


def test_columns_of_others_are_not_read_and_memory_is_that_of_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cohort(tmp_path / "c")
    table = pd.read_parquet(folder / "patches.parquet")
    table.assign(nothing=None, more=[[1]] * 4).to_parquet(folder / "patches.parquet")
    assert list(Cohort.open(folder).table) == list(COLUMNS)
    pd.DataFrame({"yes": np.ones(10**6, bool)}).to_parquet(tmp_path / "long.parquet")  # 125 kB for Arrow
    assert read_table(tmp_path / "long.parquet", ["yes"])["yes"].all()
    monkeypatch.setattr(records, "MAX_TABLE_MEMORY", 4 * 10**6)
    with pytest.raises(ValueError, match="once unpacked"):
        read_table(tmp_path / "long.parquet", ["yes"])


def test_a_long_text_that_all_rows_share_is_not_written_out(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for length, rows in ((2**20, 2 * 10**6), (records.MAX_TEXT_BYTES + 1, 1)):  # the first: 2 TB of text
        shared = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * length]))
        pq.write_table(pa.table({"patient": shared}), file, compression="zstd")
        assert file.stat().st_size < 10_000
        before = pa.total_allocated_bytes()
        with pytest.raises(ValueError, match=rf"a text in it has {length} bytes"):
            read_table(file, ["patient"])
        assert pa.default_memory_pool().max_memory() - before < 10**9
    shared = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0]), pa.array(["é", ""]))
    pq.write_table(pa.table({"patient": shared}), file)
    assert read_table(file, ["patient"])["patient"].tolist()[:2] == ["é", ""]
    pq.write_table(pa.table({"patient": pa.array([b"no text"])}), file)
    with pytest.raises(ValueError, match="its column patient holds dictionary<values=binary"):
        read_table(file, ["patient"])


def test_text_that_repeats_parts_of_the_text_before_is_refused(tmp_path: Path) -> None:
    table = pa.table({"patient": ["x" * 2**16 + str(number) for number in range(100)]})
    kinds = {"patient": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, column_encoding=kinds)
    with pytest.raises(OSError, match="DeltaByteArray"):
        read_table(tmp_path / "a.parquet", ["patient"])


def test_a_damaged_footer_does_not_abort_the_process(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pd.DataFrame({"prob": [0.1, 0.2]}).to_parquet(file)
    content = file.read_bytes()
    optional = b"\x25\x02\x18\x04prob"  # "repetition_type: OPTIONAL, name: prob" in Thrift's compact form
    assert content.count(optional) == 1
    file.write_bytes(content.replace(optional, b"\x25\x00\x18\x04prob"))  # REQUIRED, unlike what its statistics count
    code = (
        "import sys; from pathlib import Path; from ductal.loading.records import read_table\n"
        "read_table(Path(sys.argv[1]), ['prob'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)  # read, or refused; -6 where it was aborted
    assert done.returncode == 0 or re.search("(ValueError|OSError|ArrowInvalid)", done.stderr)


def test_no_column_becomes_the_index(tmp_path: Path) -> None:
    pd.DataFrame({"patch_id": ["a", "b"], "x": ["c", "d"]}).set_index("x").to_parquet(tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet", ["patch_id", "x"])) == ["patch_id", "x"]


def test_text_that_is_no_text_is_refused_when_it_is_read(tmp_path: Path) -> None:
    ends = pa.py_buffer(np.array([0, 2, 4], np.int32).tobytes())
    names = pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"a\xffbc")])
    pq.write_table(pa.table({"patch_id": names}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="Invalid UTF8"):
        read_table(tmp_path / "a.parquet", ["patch_id"])


def test_another_folder_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a prepared cohort"):
        Cohort.open(tmp_path)


def test_the_fingerprint_follows_content_not_order() -> None:
    table = pd.DataFrame({"patch_id": ["b", "a"], "patient": ["q", "p"], "label": [0, 1], "sha1": ["1", "2"]})
    assert fingerprint_of(table) == hashlib.sha1(b"a p 1 2\nb q 0 1\n").hexdigest()
    assert fingerprint_of(table) == fingerprint_of(table[::-1])
    for column, value in (("patch_id", "c"), ("patient", "p"), ("label", 1), ("sha1", "3")):
        changed = table.copy()
        changed.loc[0, column] = value
        assert fingerprint_of(changed) != fingerprint_of(table)
