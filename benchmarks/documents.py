"""Writes a model's figures into MODEL_CARD.md and README.md, from run.json and the results here.

    python benchmarks/documents.py

Tables are found by their heading, sentences by their words; one that isn't there exactly once is
an error, so that nothing stays behind in silence. What isn't a figure is left to whoever writes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RUN = Path("src/inkdigits/weights/run.json")
RESULTS = ("inputs", "robustness", "footprint")
CARD, README = "MODEL_CARD.md", "README.md"
SKLEARN = "scikit-learn's digits"
USES = {
    "train": "weights",
    "validation": "watching over training",
    "calibration": "temperature, accept thresholds, the novelty of a digit",
    "test": "the figures below, once",
}

Json = Mapping[str, Any]


def percent(share: float, digits: int = 2) -> str:
    """A share as a number of percent, without the sign."""
    return f"{100 * share:.{digits}f}"


def interval(estimate: Json, *, of_share: bool = True) -> str:
    """An estimate's interval, as percent or as it is."""
    if of_share:
        return f"{percent(estimate['low'])} to {percent(estimate['high'])} %"
    return f"{estimate['low']:.4f} to {estimate['high']:.4f}"


def fill(text: str, heading: str, rows: Iterable[str]) -> str:
    """Replace the rows of the one table whose heading starts so.

    Raises:
        ValueError: there is no such table, or there are several.
    """
    found = [m.start() for m in re.finditer("^" + re.escape(heading), text, re.MULTILINE)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} tables start with {heading!r}; there must be one")
    lines = text[found[0] :].splitlines(keepends=True)
    end = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return text[: found[0]] + "".join([*lines[:2], *(f"{row}\n" for row in rows), *lines[end:]])


def say(text: str, pattern: str, sentence: str) -> str:
    """Replace the one passage that matches.

    Raises:
        ValueError: there is no such passage, or there are several.
    """
    changed, n = re.subn(pattern, lambda _: sentence, text, flags=re.DOTALL)
    if n != 1:
        raise ValueError(f"{n} passages match {pattern!r}; there must be one")
    return changed


def scores(test: Json) -> dict[str, list[str]]:
    """The test part's figures, in both documents' tables."""
    accuracy, nll, ece = test["accuracy"], test["nll"], test["ece"]
    mass, brier = test["ece_adaptive"], test["brier"]
    right = f"{percent(accuracy['value'])} %"
    likelihood = f"{nll['value']:.4f} | {interval(nll, of_share=False)} |"
    calibration = f"{percent(ece['value'])} % | {interval(ece)} |"
    counted = f"{right} ({test['n_correct']:,} of {test['n']:,})"
    return {
        CARD: [
            f"| accuracy | {counted} | {interval(accuracy)} |",
            f"| negative log-likelihood, nats | {likelihood}",
            f"| expected calibration error, 15 equal-width bins | {calibration}",
            "| expected calibration error, 15 equal-mass bins "
            f"| {percent(mass['value'])} % | {interval(mass)} |",
            "| Brier score, sum over classes "
            f"| {brier['value']:.4f} | {interval(brier, of_share=False)} |",
        ],
        README: [
            f"| accuracy | {right} | {interval(accuracy)} |",
            f"| negative log-likelihood | {likelihood}",
            f"| expected calibration error, 15 bins | {calibration}",
        ],
    }


def forms(inputs: Json) -> list[str]:
    """The forms that users send."""
    return [
        f"| {row['form']} | {percent(row['accuracy'])} % | {interval(row)} "
        f"| {row['points_from_tensor']:+.2f} | {row['read_otherwise']} |"
        for row in inputs["rows"]
    ]


def digits(result: Json) -> list[str]:
    """Each family of digits in the robustness report, and the mean of the corruptions."""
    rows = []
    for family in result["digits"]:
        name = family["name"]
        if family["severities"]:
            name += f" (severity {family['severities'][0]})"
        rows.append(
            f"| {name} | {family['n']:,} | {percent(family['accuracy']['value'])} % "
            f"| {interval(family['accuracy'])} | {percent(family['ece'])} % "
            f"| {percent(family['coverage'])} % "
            f"| {family['n_wrong_accepted']} of {family['n_accepted']:,} "
            f"| {percent(family['rejected'])} % |"
        )
    mean = percent(result["corruption_accuracy"])
    return [*rows, f"| **mean of the 15 corruptions** | | **{mean} %** | | | | | |"]


def non_digits(result: Json) -> list[str]:
    """Each kind of picture without a digit."""
    return [
        f"| {kind['name'].replace('_', ' ')} | {kind['n']:,} | {kind['auroc']:.4f} "
        f"| {percent(kind['fpr_at_95_tpr'])} % | {percent(kind['rejected'])} % "
        f"| {percent(kind['reviewed'])} % | {percent(kind['accepted'])} % |"
        for kind in result["non_digits"]
    ]


def corruptions(result: Json) -> list[Json]:
    """Of the families of digits, those that are corrupted."""
    return [family for family in result["digits"] if family["severities"]]


def lowest_corruption(result: Json) -> str:
    """The corruption that costs most, and what is left."""
    lowest = min(corruptions(result), key=lambda family: family["accuracy"]["value"])
    return f"{lowest['name']}, {percent(lowest['accuracy']['value'])} %"


def beyond(result: Json) -> list[str]:
    """The README's extract of the robustness report."""
    by_name = {row["name"]: row for row in (*result["digits"], *result["non_digits"])}
    right = {
        name: f"{row['n']:,} | {percent(row['accuracy']['value'])} % right"
        for name, row in by_name.items()
        if "accuracy" in row
    }
    refused = {
        name: f"{row['n']:,} | {percent(row['rejected'])} % refused, "
        f"{percent(row['accepted'])} % accepted"
        for name, row in by_name.items()
        if "auroc" in row
    }
    corrupted = sum(family["n"] for family in corruptions(result))
    photos, scenes, blank = (by_name[name] for name in ("photographs", "scenes", "blank"))
    return [
        f"| the 15 corruptions of MNIST-C, training had their like | {corrupted:,} "
        f"| {percent(result['corruption_accuracy'])} % right; lowest {lowest_corruption(result)} |",
        f"| scikit-learn's digits, Turkish writers, none seen in training | {right[SKLEARN]} |",
        f"| digits drawn with a pen on a canvas | {right['pen strokes']} |",
        "| digits photographed by code: uneven light, ruled paper, blur, faint ink, … "
        f"| {right['photographs']}, {percent(photos['rejected'], 1)} % rejected, "
        f"{photos['n_wrong_accepted']} of {photos['n_accepted']:,} accepted ones wrong |",
        "| digits in scenes by code: a sheet on a table, a note on a wall, a small digit on a page "
        f"| {right['scenes']}, {scenes['n_wrong_accepted']} of {scenes['n_accepted']:,} accepted "
        "ones wrong |",
        "| letters from fonts held back "
        f"| {refused['letter']}; AUROC {by_name['letter']['auroc']:.4f} |",
        f"| scribbles | {refused['scribble']}; AUROC {by_name['scribble']['auroc']:.4f} |",
        f"| blanks | {blank['n']:,} | {percent(blank['rejected'], 1)} % refused |",
        f"| such photographs of paper without a digit | {refused['photographed_paper']} |",
        f"| such scenes without a digit | {refused['empty_scenes']} |",
    ]


def risks(policy: Json) -> list[str]:
    """What each stated risk costs."""
    rows = []
    for choice in policy["choices"]:
        risk = f"{100 * choice['risk']:g} %"
        if choice["threshold"] is None:
            rows.append(f"| {risk} | can't be kept | 0 % | |")
        else:
            rows.append(
                f"| {risk} | {choice['threshold']:g} | {percent(choice['coverage'])} % "
                f"| {choice['n_wrong']} of {choice['n_accepted']:,} |"
            )
    return rows


def card(text: str, run: Json, results: Mapping[str, Json]) -> str:
    """MODEL_CARD.md with the figures."""
    report, mild = results["robustness"]["mnist_c"], results["robustness"]["mild"]
    parts = [f"| {name} | {run['data'][name]['n']:,} | {use} |" for name, use in USES.items()]
    text = fill(text, "| Part | n | Used for |", parts)
    text = fill(text, "| Figure | Value | Interval |", scores(run["test"])[CARD])
    text = fill(text, "| Form | Accuracy |", forms(results["inputs"]))
    text = fill(text, "| Pictures | n | Accuracy |", digits(report))
    text = fill(text, "| Pictures without a digit |", non_digits(report))
    text = fill(text, "| Risk | Accepted from |", risks(run["policy"]))

    wrong = sum(family["n_wrong_accepted"] for family in corruptions(mild))
    accepted = sum(family["n_accepted"] for family in corruptions(mild))
    text = say(
        text,
        r"In the mildest severity of each corruption .*? %\.\n",
        f"In the mildest severity of each corruption {wrong} of {accepted:,} accepted readings are "
        f"wrong\n({percent(wrong / accepted)} %), and the mean accuracy is "
        f"{percent(mild['corruption_accuracy'])} %.\n",
    )
    text = say(
        text,
        r"- Its lowest corruption is [^,]*, [\d.]+ %\.",
        f"- Its lowest corruption is {lowest_corruption(report)}.",
    )

    fitted, made, policy = run["calibration"], run["calibration_on_synthetic"], run["policy"]
    before, after = fitted["before"], fitted["after"]
    text = say(
        text,
        r"Temperature [\d.]+, fitted on .*? Accuracy\ncan't change by it\.",
        f"Temperature {fitted['temperature']:.4f}, fitted on the calibration split "
        f"(n = {fitted['n']:,}) and as many digits\nsynthesised from it. On the clean ones it "
        f"changes NLL from {before['nll']['value']:.4f} to {after['nll']['value']:.4f} and ECE "
        f"(15 bins)\nfrom {percent(before['ece']['value'])} to {percent(after['ece']['value'])} %; "
        f"on the synthesised ones NLL is {made['nll']['value']:.4f} and ECE "
        f"{percent(made['ece']['value'])} %. Accuracy\ncan't change by it.",
    )
    clean = next(family for family in report["digits"] if family["name"] == "clean")
    mildly = run["accepted_of_corrupted"]
    text = say(
        text,
        r"Accepted from confidence [\d.]+, .*? are rejected \(n = [\d,]+\)\.",
        f"Accepted from confidence {policy['accept_threshold']:g}, the lowest of a fixed list "
        "whose accepted pictures on the\ncalibration split are wrong at most "
        f"{100 * policy['risk']:g} % of the time, with {100 * policy['level']:g} % confidence "
        "(Clopper\N{EN DASH}Pearson,\nfixed-sequence test), and which keeps that risk, as counted, "
        "on as many mildly corrupted ones too\n"
        f"({percent(mildly['n_accepted'] / mildly['n'])} % accepted, {mildly['n_wrong']} of "
        f"{mildly['n_accepted']:,} wrong). On the test set it accepts "
        f"{percent(clean['coverage'])} %, of which {clean['n_wrong_accepted']} of\n"
        f"{clean['n_accepted']:,} are wrong; {percent(clean['rejected'])} % are rejected "
        f"(n = {clean['n']:,}).",
    )
    text = say(
        text,
        r"cost on the calibration split \(n = [\d,]+\), for",
        f"cost on the calibration split (n = {fitted['n']:,}), for",
    )
    return say(
        text,
        r"Above -?[\d.]+ a picture is rejected as no digit: at most [\d.]+ %",
        f"Above {policy['novelty_threshold']:.4f} a picture is rejected as no digit: at most "
        f"{100 * policy['rejected_share']:g} %",
    )


def readme(text: str, run: Json, results: Mapping[str, Json]) -> str:
    """README.md with the figures."""
    text = fill(text, "| Figure | Value | 95 % interval |", scores(run["test"])[README])
    text = fill(text, "| Form | Accuracy |", forms(results["inputs"]))
    text = fill(text, "| Pictures | n | Result |", beyond(results["robustness"]["mnist_c"]))
    footprint = results["footprint"]
    return say(
        text,
        r"The core install is \d+ MB, .*?\nholds \d+ MB then",
        f"The core install is {footprint['install_mb']:.0f} MB, the service gives its first answer "
        f"{footprint['first_answer_s']['median']:.2f} s after it was started, and\nholds "
        f"{footprint['resident_mb_median']:.0f} MB then",
    )


def rewritten(repository: Path) -> dict[str, str]:
    """Both documents, with the figures of the shipped run.

    Raises:
        ValueError: a result is of another model, or a document lacks a table or a passage.
    """
    run = json.loads((repository / RUN).read_text())
    version = run["model_version"]
    results = {
        name: json.loads((repository / "benchmarks" / f"{name}.json").read_text())
        for name in RESULTS
    }
    for name in ("inputs", "robustness"):
        if results[name]["model_version"] != version:
            raise ValueError(
                f"benchmarks/{name}.json is of {results[name]['model_version']}, run.json of "
                f"{version}: run benchmarks/{name}.py again"
            )
    documents = {}
    for name, write in ((CARD, card), (README, readme)):
        text = (repository / name).read_text()
        text = re.sub(r"mnist-classifier-[0-9a-f]{12}", version, text)
        documents[name] = write(text, run, results)
    return documents


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for name, text in rewritten(REPOSITORY).items():
        (REPOSITORY / name).write_text(text)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
