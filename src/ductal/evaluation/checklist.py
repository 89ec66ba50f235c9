"""`CHECKLIST.md`: two reporting checklists, filled in as far as a run can answer, the rest open for the authors.

CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 2024) is for studies of AI in medical imaging, TRIPOD+AI
(Collins et al., BMJ 2024) for those of prediction models. Their items are data: ``templates/claim_2024.toml`` and
``tripod_ai.toml``, in words of our own; read the originals before a publication is submitted.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ductal.evaluation.checklist_answers import answers
from ductal.evaluation.markdown import render
from ductal.evaluation.runs import RunRecord, load_run
from ductal.files import write_text

FILE = "CHECKLIST.md"
CHECKLISTS = ("claim_2024", "tripod_ai")
OPEN = "open: for the authors"


@dataclass(frozen=True)
class Item:
    """An item of a checklist with what the run says to it.

    Attributes:
        number: as the checklist counts, such as "12c".
        section: where in a publication it belongs.
        topic: what is asked, in few words.
        answer: what the run says; "" where it cannot.
        left: what the authors must add; "" where the answer is all.
    """

    number: str
    section: str
    topic: str
    answer: str
    left: str

    @property
    def says(self) -> str:
        """Answer and what is open, in one text."""
        if not self.answer:
            return OPEN
        return f"{self.answer} ({OPEN}: {self.left})" if self.left else self.answer

    @property
    def status(self) -> str:
        """"from the run", "partly" or "open"."""
        return "open" if not self.answer else "partly" if self.left else "from the run"


@dataclass(frozen=True)
class Checklist:
    """A checklist filled in from a run."""

    name: str
    cite: str
    items: tuple[Item, ...]

    @property
    def counts(self) -> str:
        """How many items have which status."""
        found = [item.status for item in self.items]
        return ", ".join(f"{found.count(status)} {status}" for status in ("from the run", "partly", "open"))


def filled(run: RunRecord) -> list[Checklist]:
    """Both checklists as far as `run` answers them."""
    known = answers(run)
    found = []
    for name in CHECKLISTS:
        file = resources.files("ductal.evaluation") / "templates" / f"{name}.toml"
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        items = tuple(
            Item(item["number"], item["section"], item["topic"], known.get(item.get("answer", ""), ""),
                 item.get("open", ""))
            for item in content["items"]
        )  # fmt: skip
        found.append(Checklist(content["name"], content["cite"], items))
    return found


def write_checklist(run_folder: str | Path) -> Path:
    """Write ``CHECKLIST.md`` into a run folder, evaluated or not; returns its path.

    Raises:
        RunError: as `ductal.evaluation.runs.load_run`.
        StorageError: the disk refused the write.
    """
    run = load_run(run_folder, evaluated=False)
    path = run.folder / FILE
    write_text(path, render("CHECKLIST.md.j2", {"title": run.title, "checklists": filled(run)}))
    return path
