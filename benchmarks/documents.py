"""Writes the shipped model's figures into MODEL_CARD.md and README.md.

The figures come from run.json and from the results beside this script. A document marks a place by
`<!-- figures: NAME -->` and `<!-- end -->`; what stands between them is replaced. A mark that no
function here knows is an error, and so is a result of another model.

    python benchmarks/documents.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from results import REPOSITORY

RUN = Path("src/inkdigits/weights/run.json")
RESULTS = ("inputs", "robustness", "int8", "footprint")
DOCUMENTS = ("MODEL_CARD.md", "README.md")
USES = {
    "train": "weights",
    "validation": "watching the loss during training",
    "calibration": "temperature, accept thresholds, out-of-distribution threshold",
    "test": "the figures below",
}

# Names of rows, or how several begin that are pooled. A report from before a row was measured is
# shown without it.
BEYOND_DIGITS = {
    "school pupils": "the school pupils' digits among MNIST's",
    "pen strokes of 6 writers": "pen strokes of 6 writers who trained nothing, of UCI's pendigits",
    "bitmaps": "bitmaps that trained nothing, of UCI's optdigits",
    "scikit-learn's digits": "scikit-learn's digits, by writers that no training saw",
    "pen strokes": "digits drawn by code with a pen on a canvas",
    "photographs": "digits photographed by code: uneven light, ruled paper, blur, faint ink",
    "scenes": "digits in scenes by code: a sheet on a table, a note, a small digit on a page",
    "upright ones": "ones as an upright stick",
    "flagged ones": "ones with a flag",
    "lambda ones": "ones like a lambda",
    "frame": "digits with a printed frame on some sides, touched or not",
    "flush": "digits flush with an edge or a corner",
    "tiny": "digits of 30 pixels in 1.5 megapixels",
    "cut off by 20 %": "digits of which the edge cuts off 20 %",
    "cut off by 35 %": "digits of which the edge cuts off 35 %",
}
BEYOND_OTHERS = {
    "two digits on": "two digits, on white, dim and bright backgrounds",
    "3 to 10 digits": "3 to 10 digits",
    "second": "two digits, the second small, faint or far away",
    "letter": "letters from fonts that are held back",
    "handwritten_letter": "letters as if by hand, of scripts that are held back",
    "wandering": "lines that wander",
    "scribble": "scribbles",
    "blank": "blanks",
    "photographed_paper": "such photographs of paper without a digit",
    "empty_scenes": "such scenes without a digit",
    "empty paper": "empty paper with print or objects",
}

DIGIT_COUNTS = ("n", "n_correct", "n_accepted", "n_wrong_accepted")

Json = Mapping[str, Any]
Figures = Mapping[str, Json]
"""The run and each of RESULTS, by name."""


def percent(share: float, decimals: int = 2) -> str:
    return f"{100 * share:.{decimals}f} %"


def span(estimate: Json) -> str:
    return f"{100 * estimate['low']:.2f} to {percent(estimate['high'])}"


def table(heading: str, alignment: str, rows: list[str]) -> str:
    """Return a Markdown table; the alignment has a letter per column, l or r."""
    rule = " | ".join("---:" if side == "r" else "---" for side in alignment)
    return "\n".join(f"| {row} |" for row in (heading, rule, *rows))


def parts(figures: Figures) -> str:
    data = figures["run"]["data"]
    rows = [f"{name} | {data[name]['n']:,} | {use}" for name, use in USES.items()]
    return table("Part | n | Used for", "lrl", rows)


def scores(figures: Figures) -> str:
    test = figures["run"]["test"]
    right = test["accuracy"]
    counted = f"{percent(right['value'])} ({test['n_correct']:,} of {test['n']:,})"
    rows = [f"accuracy | {counted} | {span(right)}"]
    for kind, key in (("equal-width", "ece"), ("equal-mass", "ece_adaptive")):
        name = f"expected calibration error, 15 {kind} bins"
        rows.append(f"{name} | {percent(test[key]['value'])} | {span(test[key])}")
    for name, key in (("negative log-likelihood, nats", "nll"), ("Brier score", "brier")):
        value, low, high = (f"{test[key][k]:.4f}" for k in ("value", "low", "high"))
        rows.append(f"{name} | {value} | {low} to {high}")
    return table("Figure | Value | 95 % interval", "lrr", rows)


def forms(figures: Figures) -> str:
    rows = [
        f"{row['form']} | {percent(row['accuracy'])} | {span(row)} "
        f"| {row['points_from_tensor']:+.2f} | {row['read_otherwise']}"
        for row in figures["inputs"]["rows"]
    ]
    return table("Form | Accuracy | 95 % interval | Points | Read otherwise", "lrrrr", rows)


def worst_form(figures: Figures) -> str:
    rows = figures["inputs"]["rows"]
    worst = min(row["points_from_tensor"] for row in rows)
    return (
        f"In {len(rows) - 1} forms that users send (inverted, enlarged, transparent, JPEG, in a "
        f"corner)\nthe accuracy is at most {-worst:.2f} points lower "
        "([table](MODEL_CARD.md#in-the-forms-that-users-send))."
    )


def digits(figures: Figures) -> str:
    report = figures["robustness"]["mnist_c"]
    rows = []
    for family in report["digits"]:
        severity = f" (severity {family['severities'][0]})" if family["severities"] else ""
        rows.append(
            f"{family['name']}{severity} | {family['n']:,} "
            f"| {percent(family['accuracy']['value'])} | {span(family['accuracy'])} "
            f"| {percent(family['ece'])} | {percent(family['coverage'])} "
            f"| {family['n_wrong_accepted']} of {family['n_accepted']:,} "
            f"| {percent(family['rejected'])}"
        )
    mean = percent(report["corruption_accuracy"])
    rows.append(f"**mean of the 15 corruptions** | | **{mean}** | | | | |")
    heading = "Pictures | n | Accuracy | 95 % interval | ECE"
    return table(heading + " | Accepted | Wrong of accepted | Rejected", "lrrrrrrr", rows)


def non_digits(figures: Figures) -> str:
    rows = [
        f"{kind['name'].replace('_', ' ')} | {kind['n']:,} | {kind['auroc']:.4f} "
        f"| {percent(kind['fpr_at_95_tpr'])} | {percent(kind['rejected'])} "
        f"| {percent(kind['reviewed'])} | {percent(kind['accepted'])}"
        for kind in figures["robustness"]["mnist_c"]["non_digits"]
    ]
    heading = "Pictures without a digit | n | AUROC | FPR at 95 % TPR"
    return table(heading + " | Rejected | Reviewed | Accepted", "lrrrrrr", rows)


def mild(figures: Figures) -> str:
    report = figures["robustness"]["mild"]
    corrupted = [family for family in report["digits"] if family["severities"]]
    wrong = sum(family["n_wrong_accepted"] for family in corrupted)
    accepted = sum(family["n_accepted"] for family in corrupted)
    return (
        f"In the mildest severity of each corruption {wrong} of {accepted:,} accepted readings are "
        f"wrong\n({percent(wrong / accepted)}), and the mean accuracy is "
        f"{percent(report['corruption_accuracy'])}."
    )


def pooled(rows: list[Json], name: str) -> list[Json]:
    """Return the row of that name, or else all whose names begin so."""
    exact = [row for row in rows if row["name"] == name]
    return exact or [row for row in rows if row["name"].startswith(name)]


def beyond(figures: Figures) -> str:
    report = figures["robustness"]["mnist_c"]
    corrupted = [family for family in report["digits"] if family["severities"]]
    lowest = min(corrupted, key=lambda family: family["accuracy"]["value"])
    mean, least = percent(report["corruption_accuracy"]), percent(lowest["accuracy"]["value"])
    n = f"{sum(family['n'] for family in corrupted):,}"
    title = "the 15 corruptions of MNIST-C; training had similar ones"
    rows = [f"{title} | {n} | {mean} right; lowest: {lowest['name']}, {least}"]
    for name, title in BEYOND_DIGITS.items():
        if found := pooled(report["digits"], name):
            count = {key: sum(row[key] for row in found) for key in DIGIT_COUNTS}
            shares = (percent(count[key] / count["n"]) for key in ("n_correct", "n_accepted"))
            right, accepted = shares
            wrong = f"{count['n_wrong_accepted']} of {count['n_accepted']:,} accepted ones wrong"
            rows.append(f"{title} | {count['n']:,} | {right} right, {accepted} accepted, {wrong}")
    for name, title in BEYOND_OTHERS.items():
        if found := pooled(report["non_digits"], name):
            total = sum(row["n"] for row in found)
            rejected, accepted = (
                percent(sum(row[key] * row["n"] for row in found) / total)
                for key in ("rejected", "accepted")
            )
            rows.append(f"{title} | {total:,} | {rejected} rejected, {accepted} accepted")
    return table("Pictures | n | Result", "lrl", rows)


def elsewhere(figures: Figures) -> str:
    """Return what the promise was elsewhere: the worst kinds of digits that can be read."""
    rows = [
        row
        for row in figures["robustness"]["mnist_c"]["digits"]
        if row["group"] == "other" and row["n_accepted"] and "cut off" not in row["name"]
    ]
    shares = {row["name"]: row["n_wrong_accepted"] / row["n_accepted"] for row in rows}
    worst = sorted(shares, key=shares.__getitem__, reverse=True)[:2]
    named = " and ".join(f"{percent(shares[name])} on {name}" for name in worst)
    return (
        "That is measured on MNIST's calibration digits; elsewhere the share was higher:\n"
        f"{named} ([below](#how-good-it-is))."
    )


def int8(figures: Figures) -> str:
    *_, total, _ = figures["int8"]["rows"]
    return (
        f"Of {total['n']:,} held-back pictures {total['readings']} readings and "
        f"{total['decisions']} decisions differ from float32's (at most\n"
        f"{total['readings_at_most_percent']:.3f} and {total['decisions_at_most_percent']:.3f} %, "
        "Clopper\N{EN DASH}Pearson, 95 % confidence; `python benchmarks/int8.py`)."
    )


def temperature(figures: Figures) -> str:
    fitted, made = (figures["run"][k] for k in ("calibration", "calibration_on_synthetic"))
    before, after = fitted["before"], fitted["after"]
    return (
        f"The temperature is {fitted['temperature']:.4f}, fitted on the calibration split "
        f"(n = {fitted['n']:,}) and on as many\ndigits synthesised from it. On the clean digits it "
        f"changes NLL from {before['nll']['value']:.4f} to {after['nll']['value']:.4f}, and\nECE "
        f"(15 bins) from {percent(before['ece']['value'])} to {percent(after['ece']['value'])}. On "
        f"the synthesised digits NLL is {made['nll']['value']:.4f} and ECE\nis "
        f"{percent(made['ece']['value'])}. The accuracy cannot change by it."
    )


def threshold(figures: Figures) -> str:
    policy, run = figures["run"]["policy"], figures["run"]
    # Runs before the groups had one: the same digits, mildly corrupted.
    groups = run.get("accepted_by_group") or {"mildly corrupted": run["accepted_of_corrupted"]}
    kept = "; ".join(
        f"{name} {percent(of['n_accepted'] / of['n'])}, {of['n_wrong']} of {of['n_accepted']:,}"
        for name, of in groups.items()
    )
    return (
        f"A reading is accepted from confidence {policy['accept_threshold']:g}, the lowest of a "
        "fixed list that keeps the risk. At most\n"
        f"{100 * policy['risk']:g} % of the accepted pictures of the calibration split are wrong, "
        f"with {100 * policy['level']:g} % confidence\n"
        "(Clopper\N{EN DASH}Pearson bound, fixed-sequence test). It must also keep that risk, as "
        f"counted, in each group. Accepted there,\nand wrong of those: {kept}."
    )


def risks(figures: Figures) -> str:
    rows = []
    for choice in figures["run"]["policy"]["choices"]:
        row = "cannot be kept | 0 % | "
        if choice["threshold"] is not None:
            wrong = f"{choice['n_wrong']} of {choice['n_accepted']:,}"
            row = f"{choice['threshold']:g} | {percent(choice['coverage'])} | {wrong}"
        rows.append(f"{100 * choice['risk']:g} % | {row}")
    return table("Risk | Accepted from | Coverage | Wrong of accepted", "rrrr", rows)


def novelty(figures: Figures) -> str:
    policy = figures["run"]["policy"]
    return (
        f"Above {policy['novelty_threshold']:.4f} a picture is rejected as not a digit. At most "
        f"{100 * policy['rejected_share']:g} % of digits\nare, by conformal prediction on the "
        "calibration split."
    )


def footprint(figures: Figures) -> str:
    found = figures["footprint"]
    return (
        f"The core install is {found['install_mb']:.0f} MB. `inkdigits serve` gives its first "
        f"answer {found['first_answer_s']['median']:.1f} s after its start,\nand all its processes "
        f"then hold {found['resident_mb_median']:.0f} MB."
    )


OF_DATA = (parts, scores, forms, worst_form, digits, non_digits, mild, beyond, elsewhere, int8)
OF_POLICY = (temperature, threshold, risks, novelty, footprint)
BLOCKS: dict[str, Callable[[Figures], str]] = {f.__name__: f for f in (*OF_DATA, *OF_POLICY)}


def rewritten(repository: Path) -> dict[str, str]:
    """Return the text of both documents with the figures of the shipped run.

    Raises:
        ValueError: a result is of another model, or a document has a mark without a function.
    """
    figures = {"run": json.loads((repository / RUN).read_text())}
    version = figures["run"]["model_version"]
    for name in RESULTS:
        result = json.loads((repository / "benchmarks" / f"{name}.json").read_text())
        if result.get("model_version", version) != version:
            raise ValueError(
                f"benchmarks/{name}.json is of {result['model_version']}, run.json of {version}: "
                f"run benchmarks/{name}.py again"
            )
        figures[name] = result

    def block(match: re.Match[str]) -> str:
        if match[1] not in BLOCKS:
            raise ValueError(f"no figures are called {match[1]!r}: {', '.join(BLOCKS)}")
        return f"<!-- figures: {match[1]} -->\n{BLOCKS[match[1]](figures)}\n<!-- end -->"

    documents = {}
    for name in DOCUMENTS:
        text = (repository / name).read_text()
        text = re.sub(r"mnist-classifier-[0-9a-f]{12}", version, text)
        pattern = r"<!-- figures: (\w+) -->\n.*?<!-- end -->"
        documents[name] = re.sub(pattern, block, text, flags=re.DOTALL)
    return documents


def main() -> None:
    for name, text in rewritten(REPOSITORY).items():
        (REPOSITORY / name).write_text(text)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
