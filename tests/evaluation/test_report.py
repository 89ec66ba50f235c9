"""Reports: self-contained, escaped, and outspoken about what limits their figures."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import fake_runs as fake
import pytest

from ductal.errors import RunError
from ductal.evaluation.compare import best_on_validation, leaderboard
from ductal.evaluation.report import verdict, write_comparison_report, write_run_report
from ductal.evaluation.tables import cell

HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Collects tags, their attributes and the visible text."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("out")
    runs = [
        fake.make_run(out / "runs" / "vgg16-frozen", "vgg16-frozen", skill=1.5, draw=True),
        fake.make_run(out / "runs" / "vgg16-full", "vgg16-full", skill=3.0, draw=True),
        fake.make_run(out / "runs" / "mean-colour", "mean-colour", skill=0.8, control=True),
    ]
    path = write_comparison_report(out, runs, "Six models & more")
    assert path == out / "report.html"
    assert sorted(item.name for item in (out / "figures").iterdir()) == ["leaderboard.png", "roc_pr.png"]
    return read(path)


def test_it_needs_no_network_and_no_script(comparison: Page) -> None:
    assert not {"script", "link", "iframe"} & set(comparison.tags)
    for tag, name, value in comparison.attributes:
        if name in ("src", "href", "srcset", "action"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:60])
        if name == "src":
            assert base64.b64decode(value.split(",", 1)[1])[:4] == b"\x89PNG"
    css = (Path(fake.figures.__file__).parent / "templates" / "report.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_every_picture_has_a_text_and_every_link_a_target(comparison: Page) -> None:
    pictures = comparison.tags.count("img")
    assert pictures == 2 + 2 * 4  # the gallery of mistakes names patients, and is in the report of each run only
    assert (
        sum(tag == "img" and name == "alt" and value != "" for tag, name, value in comparison.attributes)
        == pictures
    )
    ids = [value for _, name, value in comparison.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in comparison.attributes if name == "href"} <= set(ids)


def test_it_says_the_result_the_cohort_the_audit_and_the_settings(comparison: Page) -> None:
    for words in (
        "Six models & more",
        "Chosen on validation patients out of 2 models: Vgg16 Full, fine-tuned",
        "on 360 patches of 6 test patients",
        "It is above the best control model, mean-colour",
        "on these patients that may be chance",
        "No intervals: 6 patients are fewer than the 10 that they need.",
        "Differences Model Against ROC AUC p",
        "18,537 patches of 162 patients",
        "Split “published”",
        "The image is not 50 x 50 px",
        "the runs' own reports have them",
        "No patient is in two parts.",
        "not testable",
        "limit_per_class 200",
        "stages[2].unfreeze block5",
        "quick_input_px not set",
        "14,780,481",
        "Times the test patients were opened 1",
        "Train time 12 min 34 s",
        "Mean over patients",
        "Each of the 6 test patients",
        "Harmonic mean of precision and recall",
        "Research use only.",
        "10.1117/12.2043872",
        "27563488",
    ):
        assert words in comparison.text, words
    assert "SYNTHETIC" not in comparison.text
    assert "Validation patients only" not in comparison.text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = fake.make_run(
        tmp_path / "run",
        HOSTILE,
        patients=(HOSTILE, '"><img src=x onerror=alert(1)>'),
        cohort=fake.cohort(name=HOSTILE, notes=[HOSTILE], quarantined={HOSTILE: 1}),
        alarms=[HOSTILE],
        recipe={"title": HOSTILE, HOSTILE: [HOSTILE]},
        audit={
            "checks": [
                {"name": HOSTILE, "what": HOSTILE, "status": "failed", "pairs": 1, "examples": [HOSTILE]}
            ]
        },
    )
    for page in (read(write_run_report(folder)), read(write_comparison_report(tmp_path, [folder], HOSTILE))):
        assert "script" not in page.tags
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert page.text.count(HOSTILE) > 8


def test_a_synthetic_cohort_is_announced_and_cites_nobody(tmp_path: Path) -> None:
    page = read(write_run_report(fake.make_run(tmp_path / "run", cohort=fake.cohort(synthetic=True))))
    assert "SYNTHETIC." in page.text
    assert "Cruz-Roa" not in page.text


def test_limits_are_announced(tmp_path: Path) -> None:
    val = read(write_run_report(fake.make_run(tmp_path / "val", parts=("val",))))
    assert "Validation patients only. This cohort has no test patients." in val.text
    unknown = fake.make_run(tmp_path / "unknown", patients=("",), cohort=fake.cohort(has_patients=False))
    text = read(write_run_report(unknown)).text
    assert "No patient ids." in text
    assert "162 patients" not in text
    again = read(write_run_report(fake.make_run(tmp_path / "again", test_opened=3)))
    assert "opened more than once. Up to 3 times." in again.text
    check = {"name": "ids", "what": "rule", "status": "failed", "pairs": 2, "examples": ["8863"]}
    leaking = fake.make_run(tmp_path / "leak", audit={"checks": [check], "notes": []})
    assert "Leak audit failed." in read(write_run_report(leaking)).text


def test_a_model_below_the_controls_is_called_that(tmp_path: Path) -> None:
    model = fake.make_run(tmp_path / "model", "model", skill=0.5)
    control = fake.make_run(tmp_path / "control", "mean-colour", skill=2.0, control=True)
    assert "does not beat the best control model, mean-colour" in verdict(leaderboard([model, control]))
    assert "ROC AUC" in verdict(leaderboard([control]))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty patients: two seeds of one recipe, and a control that is worse."""
    out = tmp_path_factory.mktemp("many")
    return [
        fake.make_run(out / "a", "vgg16-full", skill=3.0, noise=1, patients=fake.MANY),
        fake.make_run(out / "b", "vgg16-full", skill=3.0, noise=2, patients=fake.MANY, seed=7),
        fake.make_run(out / "c", "mean-colour", skill=1.5, control=True, patients=fake.MANY),
    ]


def test_intervals_differences_and_seeds_are_shown_and_explained(tmp_path: Path, many: list[Path]) -> None:
    page = read(write_comparison_report(tmp_path, many, "t"))
    rows = leaderboard(many)
    best = rows.loc[best_on_validation(rows)].to_dict()
    for words in (
        f"{cell(best, 'roc_auc')} and balanced accuracy {cell(best, 'balanced_accuracy')} on 1,200 patches",
        f"It beats the best control model, mean-colour (ROC AUC {leaderboard(many)['roc_auc'].iloc[2]:.3f}), by +0.",
        "95 % intervals over patients",
        "its 95% interval over 20 patients (2,000 draws",
        "mean-colour (the best control)",
        "exchanges the two models' predictions patient by patient",
        "Several seeds Model Seeds",
        "7, 42",
        "mean (lowest to highest)",
    ):
        assert words in page.text, words
    run = json.loads((many[0] / "metrics.json").read_text())["test"]
    low, high = run["intervals"]["per_patient"]["brier"]
    assert f"{run['per_patient']['brier']:.3f} ({low:.3f} to {high:.3f})" in page.text


def test_a_run_of_an_older_version_is_told_to_be_evaluated_again(tmp_path: Path) -> None:
    folder = fake.make_run(tmp_path / "old")
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in ("val", "test"):
        del metrics[part]["intervals"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = read(write_run_report(folder))
    assert "No intervals: this run was evaluated before they existed." in page.text
    assert re.search(r"ROC AUC 0\.\d{3}", page.text)


def test_without_patients_nothing_is_called_better_than_the_control(tmp_path: Path) -> None:
    model = fake.make_run(tmp_path / "model", "model", skill=3.0, patients=("",))
    control = fake.make_run(tmp_path / "control", "mean-colour", skill=0.5, control=True, patients=("",))
    assert "cannot be said without patients" in verdict(leaderboard([model, control]))
    assert "some patches do not say whose they are" in read(write_run_report(model)).text


def test_models_are_in_the_order_of_the_leaderboard(comparison: Page) -> None:
    anchors = [value for tag, name, value in comparison.attributes if tag == "section" and name == "id"]
    assert [a for a in anchors if a.startswith("run-")] == ["run-vgg16-full", "run-vgg16-frozen"]


def test_different_runs_need_leave_and_are_noted(tmp_path: Path) -> None:
    runs = [
        fake.make_run(tmp_path / "a", "a"),
        fake.make_run(tmp_path / "b", "b", cohort=fake.cohort(fingerprint="00")),
    ]
    with pytest.raises(RunError, match="another cohort"):
        write_comparison_report(tmp_path / "out", runs, "t")
    page = read(write_comparison_report(tmp_path / "out", runs, "t", allow_different=True))
    assert "Different runs." in page.text
    assert "another cohort" in page.text


def test_a_run_without_figures_still_reports(tmp_path: Path) -> None:
    page = read(write_run_report(fake.make_run(tmp_path / "run")))
    assert "img" not in page.tags
    assert re.search(r"ROC AUC 0\.\d{3}", page.text)
