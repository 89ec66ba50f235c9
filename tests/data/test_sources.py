"""Every layout is recognised, every patch counted once, and what cannot be used is refused by name."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from ductal.data.layout import patch_id_of
from ductal.data.sources import Entry, open_source
from ductal.errors import DataError

A = "10254_idx5_x101_y51_class0.png"
B = "10254_idx5_x51_y51_class1.png"
C = "8863_idx5_x51_y1_class1.png"
OFFICIAL = {
    f"IDC_regular_ps50_idx5/10254/0/{A}": b"a",
    f"IDC_regular_ps50_idx5/10254/1/{B}": b"b",
    f"IDC_regular_ps50_idx5/8863/1/{C}": b"c",
}


def build(tmp_path: Path, files: dict[str, bytes], form: str) -> Path:
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "s.zip", "w") as target:
            for name, content in files.items():
                target.writestr(name, content)
        return tmp_path / "s.zip"
    for name, content in files.items():
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(content)
    return tmp_path / "s"


def contents(source) -> list[bytes | None]:
    return [content for content, _ in source.chunk_reader()(source.chunk(0, len(source.entries)))]


@pytest.fixture(params=["zip", "folder"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("strip", [True, False])
def test_the_official_layout_at_any_depth(tmp_path: Path, form: str, strip: bool) -> None:
    files = {name.split("/", 1)[1] if strip else name: content for name, content in OFFICIAL.items()}
    source = open_source(build(tmp_path, files, form))
    assert source.kind == form
    assert [entry[1:] for entry in source.entries] == [
        ("10254", 51, 51, 1),
        ("10254", 101, 51, 0),
        ("8863", 51, 1, 1),
    ]
    assert contents(source) == [b"b", b"a", b"c"]
    assert patch_id_of(source.entries[0]) == B.removesuffix(".png")
    assert source.has_patients
    assert not source.synthetic
    assert source.notes == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_among_the_patches_is_told_and_not_waited_for(tmp_path: Path) -> None:
    root = build(tmp_path, OFFICIAL, "folder")
    os.mkfifo(root / "IDC_regular_ps50_idx5" / "8863" / "1" / C.replace("y1_", "y51_"))
    source = open_source(root)
    found = list(source.chunk_reader()(source.chunk(0, len(source.entries))))
    assert found == [(b"b", ""), (b"a", ""), (b"c", ""), (None, "file: a pipe or device")]


def test_kaggles_nested_copy_counts_once(tmp_path: Path, form: str) -> None:
    outer = {name.split("/", 1)[1]: content for name, content in OFFICIAL.items()}
    source = open_source(build(tmp_path, OFFICIAL | outer, form))
    assert sorted(entry.name for entry in source.entries) == sorted(outer)
    assert {entry.patient for entry in source.entries} == {"10254", "8863"}
    (note,) = source.notes
    assert "3 second copies" in note


def test_differing_copies_are_noted_and_the_shallower_kept(tmp_path: Path, form: str) -> None:
    files = OFFICIAL | {f"10254/0/{A}": b"another"}
    source = open_source(build(tmp_path, files, form))
    assert b"another" in contents(source)
    assert b"a" not in contents(source)
    assert any("1 of the second copies differ" in note for note in source.notes)


def test_patient_folders_with_other_names_keep_them(tmp_path: Path, form: str) -> None:
    source = open_source(build(tmp_path, {"p1/0/img.png": b"a", "p2/1/img.jpg": b"b"}, form))
    assert source.entries == [Entry("p1/0/img.png", "p1", -1, -1, 0), Entry("p2/1/img.jpg", "p2", -1, -1, 1)]
    assert [patch_id_of(entry) for entry in source.entries] == ["p1/0/img", "p2/1/img"]


@pytest.mark.parametrize("top", ["", "mine/"])
def test_class_folders_with_genuine_names(tmp_path: Path, form: str, top: str) -> None:
    source = open_source(build(tmp_path, {f"{top}Cancer/{B}": b"b", f"{top}not_cancer/{A}": b"a"}, form))
    assert source.kind == "class-folders"
    assert source.has_patients
    assert [entry[1:] for entry in source.entries] == [("10254", 51, 51, 1), ("10254", 101, 51, 0)]


def test_class_folders_without_patients_say_so(tmp_path: Path, form: str) -> None:
    source = open_source(build(tmp_path, {"cancer/1.png": b"b", "not_cancer/sub/1.tif": b"a"}, form))
    assert not source.has_patients
    assert "No patient ids" in source.notes[0]
    assert "cannot be by patient" in source.notes[0].replace("split cannot", "cannot")
    assert {(entry.label, entry.patient) for entry in source.entries} == {(0, ""), (1, "")}


def test_class_folders_with_a_csv(tmp_path: Path, form: str) -> None:
    table = tmp_path / "p.csv"
    table.write_text("\ufefffile,patient,x,y\ncancer/1.png,p1,51,101\n2.png,p2,,\n", encoding="utf-8")
    source = open_source(build(tmp_path, {"cancer/1.png": b"b", "not_cancer/2.png": b"a"}, form), table)
    assert source.has_patients
    assert source.entries == [
        Entry("cancer/1.png", "p1", 51, 101, 1),
        Entry("not_cancer/2.png", "p2", -1, -1, 0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,patient\n1.png,p1\n", r"no row for 1 .*'not_cancer/2\.png'"),
        ("file,patient\n1.png,p1\n2.png,p2\ngone.png,p3\n", r"not there: 'gone\.png'"),
        ("file,patient\n1.png,p1\n2.png,\n", "filled in"),
        ("file,patient\n1.png,p1\n1.png,p2\n2.png,p2\n", "listed once"),
        ("name,patient\n1.png,p1\n", "needs the columns"),
        ("file,patient,x,y\n1.png,p1,a,b\n2.png,p2,1,1\n", "whole numbers"),
        ("", "needs the columns"),
    ],
)
def test_a_csv_that_does_not_match_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    folder = build(tmp_path, {"cancer/1.png": b"b", "not_cancer/2.png": b"a"}, "folder")
    with pytest.raises(DataError, match=message):
        open_source(folder, tmp_path / "p.csv")


def test_a_bare_name_in_the_csv_may_not_fit_two_images(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("file,patient\n1.png,p1\n")
    folder = build(tmp_path, {"cancer/1.png": b"b", "not_cancer/1.png": b"a"}, "folder")
    with pytest.raises(DataError, match="more than one image"):
        open_source(folder, tmp_path / "p.csv")


def test_a_csv_may_not_contradict_genuine_names_or_be_ignored(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"file,patient\n{A},1\n{B},1\n")
    folder = build(tmp_path, {f"cancer/{B}": b"b", f"not_cancer/{A}": b"a"}, "folder")
    with pytest.raises(DataError, match="Correct the CSV"):
        open_source(folder, tmp_path / "p.csv")
    with pytest.raises(DataError, match="would be ignored"):
        open_source(build(tmp_path, OFFICIAL, "zip"), tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({f"cancer/{A}": b""}, "says class 0, its folder says class 1"),
        ({f"10254/1/{A}": b""}, "says class 0, its folder says class 1"),
        ({f"8863/0/{A}": b""}, "says patient 10254, its folder says patient 8863"),
        ({f"cancer/{B}": b"", f"10254/0/{A}": b""}, "mixed"),
        ({f"cancer/{B}": b"", "not_cancer/photo.png": b""}, "no patient in their name"),
        ({"readme.md": b""}, "No patches found.*Understood are"),
        ({"loose.png": b""}, r"'loose\.png'.*Understood are"),
        ({"__MACOSX/cancer/1.png": b"", ".hidden/cancer/1.png": b""}, "No patches found"),
        ({}, "it is empty"),
    ],
)
def test_contradictions_and_unknown_layouts_are_refused(
    tmp_path: Path, form: str, files: dict[str, bytes], message: str
) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(DataError, match=message):
        open_source(build(tmp_path, files, form))


def test_a_missing_path_and_a_folder_around_a_zip_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere.zip")
    build(tmp_path, OFFICIAL, "zip")
    with pytest.raises(DataError, match=r"name the archive itself: .*s\.zip"):
        open_source(tmp_path)


def test_the_marker_and_stray_images_are_reported(tmp_path: Path, form: str) -> None:
    files = OFFICIAL | {"IDC_regular_ps50_idx5/SYNTHETIC.txt": b"drawn", "preview.png": b""}
    source = open_source(build(tmp_path, files, form))
    assert source.synthetic
    assert source.notes == ["1 images outside the layout were ignored, such as 'preview.png'."]


def test_a_folder_reader_reports_what_it_cannot_read(tmp_path: Path) -> None:
    source = open_source(build(tmp_path, OFFICIAL, "folder"))
    (tmp_path / "s" / source.entries[0].name).unlink()
    (first, problem), *rest = source.chunk_reader()(source.chunk(0, 3))
    assert first is None
    assert "No such file" in problem
    assert [content for content, _ in rest] == [b"a", b"c"]
