"""`ductal doctor`: facts, speeds and advice; and how the processor is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ductal import doctor, machine
from ductal.cli import app
from ductal.machine import Cpu, available_cores, cpu, memory_bytes, thread_limit
from ductal.training.precision import Choice
from ductal.training.recipe import DEFAULT_RECIPES, Recipe

PLAIN, FAST = Cpu("A processor", 2, ("avx2",)), Cpu("A processor", 2, ("avx2", "avx512f", "amx_bf16"))
GIB = 1024**3


def choose(recipe: Recipe) -> Choice:
    """No probe: VGG gains from bfloat16, the others do not."""
    half = 71.0 if recipe.backbone == "VGG16" else 19.0
    precision = "mixed_bfloat16" if half > 23 else "float32"
    return Choice(precision, False, {"float32": 23.0, "mixed_bfloat16": half}, "probe")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "choose_precision", choose)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    for name in ("TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_the_command_shows_every_recipe_and_ends_with_advice() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    for name in DEFAULT_RECIPES:
        line = next(line for line in result.output.splitlines() if name in line)
        assert ("71" if name.startswith("vgg16") else "23") in line
    assert "Processor" in result.output
    assert result.output.splitlines()[-1].startswith("- ")


@pytest.mark.parametrize(
    ("processor", "memory", "gpu", "environment", "expected"),
    [
        (FAST, 16 * GIB, False, {}, []),
        (PLAIN, 16 * GIB, False, {}, ["no bfloat16"]),
        (PLAIN, None, True, {}, []),
        (FAST, 2 * GIB, False, {}, ["Little memory"]),
        (FAST, 16 * GIB, False, {"TF_ENABLE_ONEDNN_OPTS": "0"}, ["oneDNN off"]),
        (FAST, 16 * GIB, False, {"OMP_NUM_THREADS": "1"}, ["keeps cores idle"]),
    ],
)
def test_advice(
    processor: Cpu, memory: int | None, gpu: bool, environment: dict[str, str], expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "is_installed", lambda: True)
    monkeypatch.setattr(doctor, "available_cores", lambda: 2)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = doctor._advice(processor, memory, gpu)
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True))


def test_a_gpu_that_is_not_used_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert "tensorflow[and-cuda]" in doctor._advice(PLAIN, None, False)[0]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda: False)
    assert "pip install 'ductal[openvino]'" in doctor._advice(FAST, None, False)[0]


def test_the_processor_is_read_with_its_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512f avx512_bf16 x\n\n" * 2
    (tmp_path / "cpuinfo").write_text(listing)
    monkeypatch.setattr(machine, "Path", lambda _: tmp_path / "cpuinfo")
    found = cpu()
    assert (found.name, found.instructions) == ("Some CPU @ 3 GHz", ("avx2", "avx512f", "avx512_bf16"))
    assert found.has_bfloat16
    assert found.cores >= 1
    assert "avx512_bf16" in str(found)
    (tmp_path / "cpuinfo").write_text("processor: 0\nFeatures : fp asimd bf16\n")
    assert cpu().has_bfloat16
    (tmp_path / "cpuinfo").unlink()
    assert cpu().name
    assert not cpu().has_bfloat16


@pytest.mark.parametrize(("limit", "expected"), [("1048576", 1048576), ("max", None), (str(2**62), None)])
def test_memory_is_what_a_container_may_use(
    limit: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(machine, "Path", lambda _: tmp_path / "memory.max")
    found = memory_bytes()
    assert found is not None
    assert found == expected if expected else found > 1048576


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", None), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_threads_are_what_a_container_s_share_is_good_for(
    quota: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "Path", lambda _: tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert thread_limit() == expected
    assert available_cores() == (expected or 64)


def test_nothing_of_tensorflow_is_printed() -> None:
    script = (
        "from ductal import cli_tools\n"
        "from ductal.cli import main\n"
        "quiet = cli_tools.quiet_tensorflow\n"
        "def choose(recipe):\n"
        "    import tensorflow as tf\n"
        "    from ductal.training.precision import Choice\n"
        "    tf.function(lambda x: x + 1)(tf.ones(3))\n"
        "    return Choice('float32', False, {'float32': 23.0}, 'probe')\n"
        "def then_replace_the_probe():\n"
        "    quiet()\n"
        "    from ductal import doctor\n"
        "    doctor.choose_precision = choose\n"
        "cli_tools.quiet_tensorflow = then_replace_the_probe\n"
        "main()\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor"], capture_output=True, text=True, env=plain, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().splitlines()[-1].startswith("- ")
    assert not any(word in done.stdout for word in ("oneDNN custom", "cuda", "absl", "WARNING"))
