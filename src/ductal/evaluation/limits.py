"""What a model may be used for, what it may not, and what limits its figures, for card, checklist and report."""

from __future__ import annotations

from ductal.evaluation.analysis import read_failures
from ductal.evaluation.bootstrap import MIN_PATIENTS
from ductal.evaluation.runs import PART_WORDS, RunRecord

_BACKBONES = {
    "VGG": "the network VGG: Simonyan K., Zisserman A., 2015, arXiv 1409.1556",
    "EfficientNet": "the network EfficientNet: Tan M., Le Q. V., 2019, arXiv 1905.11946",
    "DenseNet": "the network DenseNet: Huang G. et al., 2017, arXiv 1608.06993",
}


def intended_use() -> list[str]:
    """What the model is for."""
    return [
        "Research on classifiers of breast histology: whether a small patch of an H&E slide shows invasive ductal "
        "carcinoma (cancer) or not (not_cancer).",
        "For people who can judge such figures: to compare methods, to teach, to study where networks fail.",
        "With patches like those it was trained on, in stain, scanner, scale and prevalence.",
    ]


def out_of_scope() -> list[str]:
    """What the model is not for."""
    return [
        "Diagnosis, grading, treatment, or any other decision about a person. It is no medical device.",
        "Statements about a patient or a slide: it calls patches, one by one.",
        "Carcinomas of other types, other organs, other stains: they are not among its classes.",
    ]


def limits(run: RunRecord) -> list[str]:
    """What limits this run's figures, from the run itself; what it cannot know is said to be unknown."""
    found = []
    if run.synthetic:
        found.append("The patches were drawn by a program. No figure here says anything about tissue.")
    found += [f"Alarm of this run: {alarm}" for alarm in run.run.get("alarms") or []]
    return [*found, *_of_figures(run), *_of_data(run), *_always(run)]


def _of_figures(run: RunRecord) -> list[str]:
    found = []
    opened, parts = int(run.run.get("test_opened", 0)), run.parts
    if not parts:
        found.append("It was not evaluated yet: there are no figures. `ductal evaluate` makes them.")
    elif "test" not in parts:
        found.append(
            "There are figures on validation patients only. Epochs, calibration and threshold were chosen on the "
            "same patients, so they are optimistic."
        )
    if opened > 1:
        found.append(f"The test patients were opened {opened} times; each look invites choices that fit them.")
    if parts:
        patients = (run.metrics[parts[-1]].get("per_patient") or {}).get("patients") or 0
        few = f", fewer than the {MIN_PATIENTS} that an interval needs" if patients < MIN_PATIENTS else ""
        found.append(
            f"The figures rest on {patients:,} {PART_WORDS[parts[-1]]} patients{few}. Patches of one patient are "
            "alike, so it is their number that counts, not that of patches."
        )
    what = "Each fold is" if run.pooled else "It is"
    found.append(f"{what} one training: another seed gives another network, and no interval here holds that.")
    return found


def _of_data(run: RunRecord) -> list[str]:
    cohort = run.run["cohort"]
    found = []
    if not cohort.get("has_patients", True):
        found.append(
            "The source does not say which patch is whose: patches of one patient may have been in training and "
            "evaluation, which inflates every figure."
        )
    if run.synthetic:
        return found
    suspects = None if run.pooled else read_failures(run.folder).get("suspects")  # each fold's are in its folder
    doubts = f" {len(suspects):,} labels that neighbours contradict are listed." if suspects is not None else ""
    found += [
        "Hospitals, laboratories and scanners of the patches are not recorded. The public IDC data set comes from "
        "one research group's archive, so nothing is known about other laboratories, stains and scanners.",
        "Age, ancestry, grade, receptors and treatment are unknown for every patient, so no figure can be given for "
        "groups of people.",
        f"Labels are outlines cut into squares: a patch at the border of a tumour holds both tissues.{doubts}",
    ]
    if not cohort.get("spacing_um"):
        found.append(
            "The scale is not recorded. About 4 um per pixel is often said of the public IDC data set, and was not "
            "verified; other scales are untested."
        )
    return found


def _always(run: RunRecord) -> list[str]:
    prevalence = ""
    counts = (run.run.get("split", {}).get("counts") or {}).get(run.parts[-1] if run.parts else "val") or {}
    if counts.get("patches"):
        prevalence = f" (here {counts['positives'] / counts['patches']:.1%})"
    return [
        "A patch is a small, flat square that is seen alone: no neighbours, no other stain, no other level of the "
        "block, nothing about the person.",
        f"Precision, accuracy and calibration hold at this prevalence{prevalence}; elsewhere they differ.",
        "not_cancer is everything that is not labelled invasive ductal carcinoma, carcinoma in situ and other "
        "tumours perhaps among it.",
    ]


def command_use(run: RunRecord) -> str:
    """How to use the run from a terminal."""
    return f"ductal predict path/to/{_folder(run)} images/ --out predictions.csv"


def python_use(run: RunRecord) -> str:
    """How to use the run from Python."""
    side = run.calibration.get("patch_size", 50)
    return "\n".join((
        "from ductal import Predictor",
        "",
        f'predictor = Predictor.from_run("path/to/{_folder(run)}")',
        f"probs = predictor.predict(patches_u8)  # uint8 RGB (n, {side}, {side}, 3), 0-255 -> float32 (n,)",
        "calls = probs >= predictor.threshold  # True: called cancer",
    ))  # fmt: skip


def citations(run: RunRecord) -> list[str]:
    """What to cite."""
    version = (run.run.get("versions") or {}).get("ductal")
    found = [f"the software ductal{f' {version}' if version else ''}, MIT licence"]
    if not run.synthetic:
        found += [
            "if these are patches of the public IDC data set: Cruz-Roa A. et al., 2014, SPIE Medical Imaging, "
            "doi:10.1117/12.2043872; and Janowczyk A., Madabhushi A., 2016, PubMed 27563488",
        ]
    recipe = run.run.get("recipe") or {}
    used = recipe.get("members") or [recipe]
    names = [str(one.get("backbone", "")) for one in used]
    return found + [says for start, says in _BACKBONES.items() if any(name.startswith(start) for name in names)]


def _folder(run: RunRecord) -> str:
    """A run's name where it is a plain one, since it goes into a command."""
    return run.name if all(letter.isalnum() or letter in "._-" for letter in run.name) else "RUN"
