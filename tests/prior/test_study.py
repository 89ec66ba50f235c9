"""Configurations measured on a small cohort: honest ones report the truth, equal trainings are made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.evaluation.metrics import binary_metrics
from ductal.prior import fitting
from ductal.prior.division import RATIOS, divide, hold_out
from ductal.prior.faults import BACKBONES, configurations
from ductal.prior.reporting import METRICS, Outcome
from ductal.prior.study import Study

REPORT_ONLY = ("augmented-validation", "shuffled-matrix", "inverted-classes", "no-test-set")


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=3, ratios=RATIOS)


@pytest.fixture(scope="module")
def study(tiny_cohort: Cohort, split: Split) -> Study:
    return Study(tiny_cohort, split, epochs=2, seed=3)


def measured(study: Study, *names: str, one_by_one: bool = True) -> dict[str, Outcome]:
    found = configurations(names, "cnn", one_by_one=one_by_one)
    return {one.name: study.measure(one) for one in found}


def test_the_honest_report_is_the_truth(study: Study, tiny_cohort: Cohort, split: Split) -> None:
    outcome = measured(study, "leaky-split")["none: small CNN from random weights"]
    assert outcome.reported == outcome.true == outcome.honest
    assert [outcome.difference(metric) for metric in METRICS] == [0, 0, 0]
    assert outcome.true.patches == len(hold_out(tiny_cohort, split))
    assert outcome.patients_seen == outcome.copies_seen == 0


def test_faults_of_the_report_train_nothing(study: Study, tiny_cohort: Cohort, split: Split) -> None:
    measured(study, REPORT_ONLY[0])
    before = study.trained
    found = measured(study, *REPORT_ONLY)
    assert study.trained == before
    true = found["inverted-classes"].true
    assert {outcome.true for outcome in found.values()} == {true}
    assert found["inverted-classes"].reported.accuracy == pytest.approx(1 - true.accuracy)
    assert found["shuffled-matrix"].reported.called_positive == true.called_positive
    assert found["augmented-validation"].reported.roc_auc != true.roc_auc
    assert found["no-test-set"].reported.patches == len(split.rows(tiny_cohort, "val"))


def test_faults_of_training_train_once_each(tiny_cohort: Cohort, split: Split) -> None:
    study = Study(tiny_cohort, split, epochs=1, seed=3)
    found = measured(study, "leaky-split", "duplicated-patches", "first-200", "best-of-five")
    assert study.trained == 1 + 1 + 1 + 1 + 5
    leaky, twice = found["leaky-split"], found["duplicated-patches"]
    assert leaky.patients_seen > 0.9
    assert leaky.copies_seen < 0.1 < twice.copies_seen
    assert twice.reported.patches == pytest.approx(2 * leaky.reported.patches, abs=2)
    parts = divide(tiny_cohort, split, replace(BACKBONES["cnn"], first_files=True), seed=3)
    first = found["first-200"]
    assert first.reported.patches == len(parts.test) < first.true.patches
    assert first.reported.prevalence == pytest.approx(tiny_cohort.labels[parts.test].mean())
    assert first.true.prevalence == pytest.approx(tiny_cohort.labels[hold_out(tiny_cohort, split)].mean())


def test_the_true_figure_is_the_packages_own(study: Study, tiny_cohort: Cohort, split: Split) -> None:
    training = BACKBONES["cnn"]
    rows = hold_out(tiny_cohort, split)
    probs = study._model(training).top.predict(np.asarray(tiny_cohort.pixels[rows]), verbose=0)[:, 0]
    expected = binary_metrics(tiny_cohort.labels[rows], probs, 0.5)
    for metric in METRICS:
        assert getattr(study.true(training), metric) == pytest.approx(expected[metric], abs=1e-6)


def test_equal_seeds_give_equal_figures_in_any_company(study: Study, tiny_cohort: Cohort, split: Split) -> None:
    names = ("leaky-split", "double-rescale")
    alone = measured(Study(tiny_cohort, split, epochs=2, seed=3), names[1])[names[1]]
    together = measured(study, *names)[names[1]]
    assert replace(alone, seconds=0) == replace(together, seconds=0)
    other = Study(tiny_cohort, split, epochs=2, seed=4).true(BACKBONES["cnn"])
    assert other.roc_auc != together.honest.roc_auc


def test_the_best_epoch_and_the_best_seed_are_kept(
    tiny_cohort: Cohort, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        """A model whose weight is the number of its epochs, right on all of the patches after two of them."""

        def __init__(self) -> None:
            self.weights, self.layers = [0], []

        def get_weights(self) -> list[int]:
            return list(self.weights)

        def set_weights(self, weights: list[int]) -> None:
            self.weights = weights

        def compile(self, *_: object, **__: object) -> None: ...

        def fit(self, *_: object, **__: object) -> None:
            self.weights = [self.weights[0] + 1]

    model = Counting()
    val = fitting.Examples(np.zeros(4), np.array([0, 1, 1, 0]))

    def predict(given: Counting, _: np.ndarray) -> np.ndarray:
        return np.array([0, 1, 1, 0.0]) if given.weights[0] == 2 else np.zeros(4)

    monkeypatch.setattr(fitting, "predict_in_order", predict)
    best = fitting.fit(
        model, val, val, BACKBONES["cnn"], epochs=5, seed=0, progress=lambda done, total: None  # noqa: ARG005
    )  # fmt: skip
    assert (best, model.weights) == (1.0, [2])

    study = Study(tiny_cohort, split, epochs=1, seed=3)
    scores = iter([0.5, 0.9, 0.7, 0.9, 0.6])
    tops = []
    monkeypatch.setattr(study, "_fit", lambda top, *_: tops.append(top) or next(scores))
    assert study._model(replace(BACKBONES["cnn"], runs=5)).top is tops[1]


def test_networks_with_a_base_of_their_own(tiny_cohort: Cohort, split: Split) -> None:
    study = Study(tiny_cohort, split, epochs=1, seed=3)
    found = measured(study, "batch-norm-training")
    assert study.trained == 3  # the synthetic pretraining, then each way to fine-tune
    assert len(found) == 2
    stuck = study.true(configurations(["frozen-random"], one_by_one=True)[1].training)
    assert stuck.patches == len(study.held_out)
