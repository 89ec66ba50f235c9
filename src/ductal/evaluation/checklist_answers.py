"""What a run can answer of a reporting checklist; an answer that is missing is open for the authors."""

from __future__ import annotations

from ductal.data.quality import RULES
from ductal.evaluation import facts, limits
from ductal.evaluation.model_card import data_facts, failure_summary, summary
from ductal.evaluation.report_judgement import calibration_tables
from ductal.evaluation.report_model import METRICS
from ductal.evaluation.runs import PART_WORDS, RunRecord

Answers = dict[str, str]
_BUILDING = ("Network", "Joined", "Head", "Starting weights", "Stage", "Epochs", "Loss", "Augmentation")


def answers(run: RunRecord) -> Answers:
    """Answers by their name in the checklists' files; those that this run cannot give are left out."""
    found = _study(run) | _data(run) | _model(run) | _evaluation(run)
    return {name: text for name, text in found.items() if text}


def _study(run: RunRecord) -> Answers:
    recipe = run.run.get("recipe") or {}
    backbone = recipe.get("backbone") or ("an ensemble" if recipe.get("members") else "a network")
    drawn = " (synthetic: patches drawn by a program)" if run.synthetic else ""
    return {
        "technology": f"Deep learning ({backbone}): breast-histology patches are called cancer or not{drawn}.",
        "summary": summary(run),
        "use": " ".join(limits.intended_use()[:1]) + " Not for: " + limits.out_of_scope()[0],
        "design": "Patches with labels that existed before the training were used: retrospective.",
        "goal": "Development of a classifier and its internal evaluation.",
        "explanations": "None in this run; `ductal explain` makes Grad-CAM and occlusion maps.",
        "limits": " ".join(limits.limits(run)[:2]) + " All of them: MODEL_CARD.md.",
        "details": "All settings: run.json and report.html of the run.",
        "users": "Users give patches; the program checks their size and type and nothing else.",
    }


def _data(run: RunRecord) -> Answers:
    cohort, told = run.run["cohort"], dict(data_facts(run))
    counts = facts.split_rows(run)
    sizes = "; ".join(f"{part}: {patches} patches of {patients} patients, {cancer} cancer"
                      for part, patients, patches, cancer, _ in counts)  # fmt: skip
    prevalence = "; ".join(f"{part} {share}" for part, _, patches, _, share in counts if patches != "0")
    by = run.run.get("split", {}).get("by", facts.UNKNOWN)
    return {
        "source": f"{facts.cohort_words(run)}; fingerprint {told['Fingerprint of the patches']}.",
        "data_identity": f"Fingerprint of the patches used: {told['Fingerprint of the patches']}.",
        "exclusions": f"{facts.selection_words(run)}; {told['Files']}.",
        "selection": f"{facts.selection_words(run)}; trained on {told['Trained on']}.",
        "preprocessing": f"{facts.scale_words(run)}, RGB, 8 bits, as they are: scaling and enlarging are layers of "
        "the network, stain is not normalised, and only training patches are augmented.",
        "missing": f"Files that cannot be used are left out and nothing is imputed: {facts.left_out_words(run)}.",
        "acquisition": facts.scale_words(run) if cohort.get("spacing_um") else "",
        "reference": "The label of each patch as the source gives it: 1 (cancer) or 0 (not cancer).",
        "partitions": f"{facts.split_words(run)}: {sizes}." if counts else "",
        "disjoint": f"Disjoint by {by}; {facts.audit_words(run)}.",
        "sizes": f"What the source holds, none was calculated: {sizes}." if counts else "",
        "flow": f"{facts.cohort_words(run)}; {facts.left_out_words(run)}; {sizes}.",
        "prevalence": f"Share of cancer patches: {prevalence}." if prevalence else "",
        "bad_input": f"Patches of another size or type are refused; files that the rules reject are named and get no "
        f"probability ({len(RULES)} rules).",
        "no_assessor": "Nobody: the predictors are pixels.",
        "predictors": "All pixels of a patch; none was selected.",
    }  # fmt: skip


def _model(run: RunRecord) -> Answers:
    model, training = facts.model_facts(run), facts.training_facts(run)
    told, trained = dict(model), dict(training)
    calibration = dict(facts.calibration_facts(run))
    recipe = run.run.get("recipe") or {}
    members = recipe.get("members") or []
    d4 = told["Averaged over flips and rotations (D4)"] == "yes"
    weights = recipe.get("class_weights")
    return {
        "model": _joined(model),
        "software": trained["Software"],
        "initial": f"{told['Starting weights']}; seed {run.run.get('seed', facts.UNKNOWN)}.",
        "training": _joined(training),
        "building": _joined([pair for pair in (*model, *training) if pair[0].startswith(_BUILDING)]),
        "chosen": "Of each stage the epoch that was best on validation patients is kept"
        + (f" ({trained['Epochs']})." if "Epochs" in trained else "."),
        "ensemble": f"{len(members) or 'No'} networks joined" + (", " if d4 else ".")
        + ("averaged over 8 flips and rotations." if d4 else ""),
        "imbalance": "" if weights is None else "Loss weighted by class." if weights else
        "Training patches drawn so that both classes are equally frequent; figures are at the natural prevalence."
        if recipe.get("sampling", "patches") != "patches" else "None: figures are at the natural prevalence.",
        "calibration": _joined([(name, calibration[name]) for name in ("Calibration", "Temperature", "Bias")])
        if calibration else "",
        "threshold": _joined([("Output", told["Output"]), *((name, calibration[name]) for name in (
            "Threshold", "Rule of the threshold", "Thresholds given up after training"))]) if calibration else "",
        "predicting": "The saved network (model.keras, or members/ of an ensemble) and calibration.json, by "
        "`ductal predict` or ductal.Predictor.",
        "availability": f"Software: ductal (MIT). Model: the run folder. "
        f"Data: fingerprint {run.run['cohort'].get('fingerprint', facts.UNKNOWN)}.",
    }  # fmt: skip


def _evaluation(run: RunRecord) -> Answers:
    if not run.parts:
        return {"external": "None by this run."}
    part = run.parts[-1]
    block = run.metrics[part]
    intervals = block.get("intervals") or {}
    failures = failure_summary(run)
    names = ", ".join(name for _, name, _ in METRICS)
    tests = "test patients, opened after training" if part == "test" else "validation patients only: optimistic"
    level = f"{intervals.get('level', 0.95):.0%}"
    sensitivity = (block.get("decision") or {}).get("sensitivity_at_specificity") or {}
    points = [f"{one['sensitivity']:.3f} at specificity {at}" for at, one in sensitivity.items()
              if one.get("sensitivity") is not None]  # fmt: skip
    recall = {key: block["at_threshold"].get(key) for key in ("recall", "specificity")}
    updated = [f"{table['headings'][0]}: " + ", ".join(f"{name} {before} to {after}" for name, before, after
               in table["rows"]) for table in calibration_tables(run)]  # fmt: skip
    return {
        "measures": f"{names}; calibration (ECE, MCE, log loss, reliability diagram); risk-coverage and "
        "decision curves.",
        "uncertainty": f"{level} intervals, {intervals['method']}, {intervals['replicates']:,} draws; "
        f"{intervals['patients']} {PART_WORDS[part]} patients (none below {intervals['minimum_patients']})."
        if intervals.get("method") else "",
        "robustness": "Errors by patient, by stain, and by distance from the border of the tumour where slides can "
        "be rebuilt." if failures else "",
        "clusters": "Patients are the clusters: metrics of each are reported, and intervals draw patients.",
        "internal": f"{facts.split_words(run)}; figures on {tests}.",
        "external": "None by this run.",
        "performance": summary(run) + " All figures with intervals: metrics.json, report.html.",
        "diagnostic": "; ".join([f"{name} {value:.3f}" for name, value in recall.items() if value is not None]
                                + [f"sensitivity {point}" for point in points]) + ".",
        "failures": " ".join(filter(None, (failures["concentration"], "Tables of patients, border, stain, confident "
                             "mistakes and doubtful labels: report.html."))) if failures else "",
        "updated": "; ".join(updated) + "." if updated else "",
    }  # fmt: skip


def _joined(pairs: facts.Pairs) -> str:
    return "; ".join(f"{name}: {value}" for name, value in pairs) + "."
