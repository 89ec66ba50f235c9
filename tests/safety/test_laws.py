"""Whatever a name, split, recipe or record holds: it is read and means the same again, or it is refused by type."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.context.model import ContextModel
from ductal.data.naming import folded, format_patch_name, is_plain, is_printable, parse_patch_name
from ductal.data.split import Split
from ductal.errors import DataError, LeakError, RecipeError, RunError
from ductal.inference.predictor import read_settings
from ductal.loading.records import read_json
from ductal.loading.schema import check_run
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe, parse_recipe

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
IDS = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.text(max_size=60))
def test_a_name_that_is_read_is_written_the_same(name: str) -> None:
    found = parse_patch_name(name)
    if found is not None:
        assert name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] in (
            format_patch_name(*found).removesuffix(".png"), ""
        )  # fmt: skip
        assert parse_patch_name(format_patch_name(*found)) == found


@given(st.text(max_size=120))
def test_a_plain_name_stays_in_its_folder(name: str) -> None:
    if is_plain(name):
        path = Path("/a/b") / f"{name}.csv"
        assert path.parent == Path("/a/b")
        assert path.name == f"{name}.csv"
        assert is_printable(name)
        assert "\n" not in name
        assert "\0" not in name


@given(st.text(max_size=20))
def test_folding_is_idempotent_and_blind_to_case(name: str) -> None:
    assert folded(folded(name)) == folded(name)
    if name.isascii():
        assert folded(name.upper()) == folded(name.lower())


@given(st.lists(IDS, max_size=5), st.lists(IDS, max_size=5), st.lists(IDS, max_size=5))
def test_a_split_is_read_as_it_was_written_or_leaks(train: list[str], val: list[str], test: list[str]) -> None:
    split = Split(name="own", parts={"train": train, "val": val, "test": test})
    with tempfile.TemporaryDirectory() as folder:
        split.save(Path(folder) / "split.json")
        leaks = set(train) & set(val) or set(train) & set(test) or set(val) & set(test)
        if leaks:
            with pytest.raises(LeakError):
                Split.load(Path(folder) / "split.json")
        else:
            assert Split.load(Path(folder) / "split.json").identity == split.identity


@given(JSON)
def test_a_split_of_anything_is_refused_or_a_split(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError):
            Split.load(path)


FIELDS = st.dictionaries(st.sampled_from(sorted(Recipe.model_fields)), JSON, max_size=4)


@given(FIELDS)
def test_a_recipe_with_anything_in_it_is_refused_or_valid(changes: dict[str, Any]) -> None:
    honest = load_recipe("vgg16-full").model_dump(mode="json")
    try:
        recipe = parse_recipe(honest | changes, "the recipe")
    except RecipeError:
        return
    assert parse_recipe(recipe.model_dump(mode="json"), "again") == recipe


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_recipe_file_of_anything_is_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.toml"
        path.write_bytes(content)
        with pytest.raises(RecipeError):
            load_recipe(path)


@pytest.mark.parametrize("content", ["x = " + "[" * 100_000, "x = " + "9" * 10_000, "x = 1e999999", "a" * 10**6])
def test_a_recipe_that_python_cannot_hold_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(content)
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "own.toml")


@given(JSON)
@settings(max_examples=60)
def test_settings_of_a_run_are_finite_or_refused(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.keras").write_bytes(b"")
        honest = {"threshold": 0.5, "temperature": 1.5}
        for key in ("threshold", "temperature", "bias", "members", "d4"):
            (folder / "calibration.json").write_text(json.dumps(honest | {key: content}), encoding="utf-8")
            try:
                found = read_settings(folder)
            except RunError:
                continue
            assert abs(found["threshold"]) + abs(found["bias"]) < float("inf")
            assert 0 < found["temperature"] < float("inf")
            assert 0 <= found["members"] <= 100


@given(st.dictionaries(st.sampled_from(["window", "own", "temperature", "patients", "format", "d4"]), JSON))
def test_a_context_of_anything_is_refused_or_usable(changes: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        model = ContextModel(5, 0.1, 1.0, 0.5)
        path = model.save(name)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
        try:
            found = ContextModel.load(name)
        except RunError:
            return
        assert found.window % 2 == 1
        assert found.temperature > 0


@given(st.dictionaries(st.sampled_from(["cohort", "split", "recipe", "audit", "timings", "seed", "alarms"]), JSON))
def test_a_record_of_anything_is_refused_or_has_its_shape(changes: dict[str, Any]) -> None:
    run = {"name": "own", "cohort": {}} | changes
    try:
        check_run(run, None)
    except RunError:
        assert changes  # without any it is honest
        return
    assert isinstance(run["cohort"], dict)
    assert isinstance(run.get("split") or {}, dict)


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"a":' * 10**5, b"[]", b"\xff", b"", b'{"a":' + b"9" * 9000])
def test_json_that_is_no_record_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "run.json")
