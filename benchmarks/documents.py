"""Writes measured figures into the documents: python benchmarks/documents.py

The figures come from run.json, from robustness.json beside it, and from the results beside this
script. A document marks a place by `<!-- figures: NAME -->` and `<!-- end -->`; what stands between
them is replaced. A mark that no function here knows is an error, as is a result of another model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from results import REPOSITORY

import inkdigits

RUN = Path("src/inkdigits/weights/run.json")
RESULTS = {
    name: Path("benchmarks", f"{name}.json")
    for name in ("inputs", "int8", "footprint", "number_reading", "serving", "capacity", "bulk")
} | {"robustness": RUN.with_name("robustness.json")}  # which the page shows too
DOCUMENTS = ("MODEL_CARD.md", "README.md", "docs/numbers.md", "docs/capacity.md")
USES = {
    "train": "weights",
    "validation": "monitoring the loss during training",
    "calibration": "temperature, accept thresholds, out-of-distribution threshold",
    "test": "the figures below",
}

# Rows of the README's table: a name in robustness.json, or how several begin that are pooled.
DIGITS = {
    "clean": "MNIST's test pictures, as PNG files",
    "scikit-learn's digits": "scikit-learn's digits (other writers, 8 by 8 pixels)",
    "pen strokes of 6 writers": "pen strokes of 6 writers who are not in the training data",
    "pen strokes": "synthetic pen strokes",
    "photographs": "synthetic photographs: uneven light, ruled paper, blur, faint ink",
    "scenes": "synthetic photographs of small digits on a table, a note or a page",
    "cut off by 20 %": "digits cut off by 20 % at an edge",
}
OTHERS = {
    "letter": "letters from held-out fonts",
    "handwritten_letter": "synthetic handwritten letters from held-out scripts",
    "scribble": "scribbles",
    "two": "pictures with two digits",
    "blank": "blank pictures",
    "empty": "empty canvases, paper and scenes, with print, objects and marks",
}

# Share of the time that cores are busy, by the autoscaler in deploy/kubernetes/.
TARGET = 0.7
DIGIT_COUNTS = ("n", "n_correct", "n_accepted", "n_wrong_accepted")

Json = Mapping[str, Any]
Figures = Mapping[str, Json]  # the run and each of RESULTS, by name


def percent(share: float, decimals: int = 2) -> str:
    return f"{100 * share:.{decimals}f} %"


def span(estimate: Json) -> str:
    return f"{100 * estimate['low']:.2f} to {percent(estimate['high'])}"


def table(heading: str, alignment: str, rows: Iterable[str]) -> str:
    """Return a Markdown table; the alignment has a letter per column, l or r."""
    rule = " | ".join("---:" if side == "r" else "---" for side in alignment)
    return "\n".join(f"| {row} |" for row in (heading, rule, *rows))


def model(figures: Figures) -> str:
    return f"The figures describe the shipped model, `{figures['run']['model_version']}`."


def parts(figures: Figures) -> str:
    data = figures["run"]["data"]
    rows = (f"{name} | {data[name]['n']:,} | {use}" for name, use in USES.items())
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
    return table("Form | Accuracy | 95 % interval | Points | Different readings", "lrrrr", rows)


def digits(figures: Figures) -> str:
    report = figures["robustness"]["mnist_c"]
    rows = [
        f"{row['name']}{''.join(f' (severity {n})' for n in row['severities'][:1])} | {row['n']:,} "
        f"| {percent(row['accuracy']['value'])} | {span(row['accuracy'])} | {percent(row['ece'])} "
        f"| {percent(row['coverage'])} | {row['n_wrong_accepted']} of {row['n_accepted']:,} "
        f"| {percent(row['rejected'])}"
        for row in report["digits"]
    ]
    mean = percent(report["corruption_accuracy"])
    rows.append(f"**mean of the 15 corruptions** | | **{mean}** | | | | |")
    heading = "Pictures | n | Accuracy | 95 % interval | ECE"
    return table(heading + " | Accepted | Wrong among accepted | Rejected", "lrrrrrrr", rows)


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
    rows = [family for family in report["digits"] if family["severities"]]
    wrong, accepted = (sum(row[k] for row in rows) for k in ("n_wrong_accepted", "n_accepted"))
    return (
        f"At the mildest severity of each corruption, {wrong} of {accepted:,} accepted readings "
        f"are wrong\n({percent(wrong / accepted)}). The mean accuracy is "
        f"{percent(report['corruption_accuracy'])}."
    )


def pooled(rows: list[Json], name: str) -> list[Json]:
    """Return the row of that name, or else all whose names begin so."""
    found = [row for row in rows if row["name"].startswith(name)]
    return [row for row in found if row["name"] == name] or found


def summary(figures: Figures) -> str:
    """Return the README's table: digits, numbers, and pictures without a digit."""
    report, forms = figures["robustness"]["mnist_c"], figures["inputs"]["rows"]
    corrupted = [family for family in report["digits"] if family["severities"]]
    worst = min(forms[1:], key=lambda row: row["accuracy"])
    sent = f"MNIST's test pictures in the worst of {len(forms) - 1} formats (JPEG, in a corner, …)"
    titled = [(title, pooled(report["digits"], name)) for name, title in DIGITS.items()]
    titled.insert(1, ("the 15 corruptions of MNIST-C (training used similar ones)", corrupted))
    rows = []
    for title, found in titled:
        n, right, accepted, wrong = (sum(row[key] for row in found) for key in DIGIT_COUNTS)
        shares = f"{percent(right / n)} correct | {percent(accepted / n)}"
        rows.append(f"{title} | {n:,} | {shares} | {wrong} of {accepted:,}")
    plain, title = figures["plain"], "MNIST's test pictures with the network `MNISTClassifier`"
    rows.insert(1, f"{title} | {plain['n']:,} | {percent(plain['accuracy']['value'])} correct | | ")
    rows.insert(1, f"{sent} | {worst['n']:,} | {percent(worst['accuracy'])} correct | | ")
    for row in figures["number_reading"]["rows"]:
        title = f"numbers of 3 to 8 digits, {row['name']}"
        right = f"{percent(row['exact'], 1)} correct (Tesseract: {tesseract(row)})"
        accepted = percent(row["accepted"] / row["n"], 1)
        wrong = f"{row['wrong_accepted']} of {row['accepted']:,}"
        rows.append(f"{title} | {row['n']:,} | {right} | {accepted} | {wrong}")
    for name, title in OTHERS.items():
        found = pooled(report["non_digits"], name)
        n = sum(row["n"] for row in found)
        sums = (sum(row[key] * row["n"] for row in found) for key in ("rejected", "accepted"))
        rejected, accepted = (percent(total / n) for total in sums)
        rows.append(f"{title} | {n:,} | {rejected} rejected | {accepted} | all")
    return table("Pictures | n | Result | Accepted | Wrong among accepted", "lrrrr", rows)


def tesseract(row: Json) -> str:
    return "not measured" if row["tesseract"] is None else percent(row["tesseract"], 0)


def numbers(figures: Figures) -> str:
    rows = [
        f"{row['name']} | {row['n']} | {percent(row['exact'], 1)} | {100 * row['low']:.1f} to "
        f"{percent(row['high'], 1)} | {row['accepted']} | {row['wrong_accepted']} "
        f"| {row['cpu_ms']:.0f} ms | {tesseract(row)} of {row['tesseract_n']}"
        for row in figures["number_reading"]["rows"]
    ]
    heading = "Numbers | n | Exact | 95 % interval | Accepted | Wrong among accepted"
    return table(f"{heading} | CPU per field | Tesseract", "lrrrrrrr", rows)


def cells(figures: Figures) -> str:
    found = figures["number_reading"]["table"]
    return (
        f"Tables with {found['cells']:,} cells contain {found['digits']} digits. The reader read "
        f"{found['found']} of these digits correctly.\nIt accepted {found['accepted']} digits, and "
        f"{found['wrong_accepted']} of these readings were wrong. It read "
        f"{found['invented_in_empty']} digits in empty cells."
    )


def rates(figures: Figures) -> str:
    names = "inkdigits serve (page and log)", "inkdigits serve --no-page (no log)"
    found = (figures["serving"]["results"][n]["8"] for n in (*names, "Flask, Gunicorn 2x4"))
    page, model, flask = (f"{one['requests_per_second']:,.0f}" for one in found)
    return (
        f"On two cores and with 8 connections, `inkdigits serve` handles {page} requests per "
        f"second with its page and log, and\n{model} without them. Plain Flask with Gunicorn "
        f"handles {flask} requests per second with the same network\n"
        "([method](benchmarks/README.md#serving))."
    )


def int8(figures: Figures) -> str:
    *_, total, _ = figures["int8"]["rows"]
    return (
        f"On {total['n']:,} held-out pictures, {total['readings']} readings and "
        f"{total['decisions']} decisions differ from float32.\nThe 95 % upper bounds are "
        f"{total['readings_at_most_percent']:.3f} % and {total['decisions_at_most_percent']:.3f} % "
        "(Clopper\N{EN DASH}Pearson; `python benchmarks/int8.py`)."
    )


def temperature(figures: Figures) -> str:
    fitted, made = (figures["run"][k] for k in ("calibration", "calibration_on_synthetic"))
    before, after = fitted["before"], fitted["after"]
    return (
        f"The temperature is {fitted['temperature']:.4f}. It was fitted on the calibration split "
        f"(n = {fitted['n']:,}) and on an equal\nnumber of digits synthesised from this split. "
        f"On clean digits, temperature scaling changes NLL from {before['nll']['value']:.4f} to "
        f"{after['nll']['value']:.4f}, and\nECE (15 bins) from {percent(before['ece']['value'])} "
        f"to {percent(after['ece']['value'])}. On the synthesised digits, NLL is "
        f"{made['nll']['value']:.4f} and\nECE is {percent(made['ece']['value'])}. Temperature "
        "scaling does not change the accuracy."
    )


def threshold(figures: Figures) -> str:
    policy, groups = figures["run"]["policy"], figures["run"]["accepted_by_group"]
    kept = [
        f"{name} | {percent(of['n_accepted'] / of['n'])} | {of['n_wrong']} of {of['n_accepted']:,}"
        for name, of in groups.items()
    ]
    left_out = ", ".join(n for n, of in groups.items() if not of.get("keeps_risk", True))
    said = f" No threshold meets the risk in {left_out}." if left_out else ""
    return (
        f"A reading is accepted if its confidence is at least {policy['accept_threshold']:g}. This "
        f"is the lowest threshold that meets a risk of {100 * policy['risk']:g} %\non the "
        f"calibration split with {100 * policy['level']:g} % confidence. It was found by "
        "fixed-sequence testing with Clopper\N{EN DASH}Pearson bounds.\nIn each group of the "
        f"table, the observed share of wrong readings must not exceed the risk.{said}\n\n"
        + table("Group | Accepted | Wrong among accepted", "lrr", kept)
    )


def risks(figures: Figures) -> str:
    rows = (
        f"{100 * choice['risk']:g} % | cannot be met | 0 % | "
        if choice["threshold"] is None
        else f"{100 * choice['risk']:g} % | {choice['threshold']:g} "
        f"| {percent(choice['coverage'])} | {choice['n_wrong']} of {choice['n_accepted']:,}"
        for choice in figures["run"]["policy"]["choices"]
    )
    return table("Risk | Accept threshold | Coverage | Wrong among accepted", "rrrr", rows)


def novelty(figures: Figures) -> str:
    policy = figures["run"]["policy"]
    return (
        f"A picture with a score above {policy['novelty_threshold']:.4f} is rejected as "
        f"`not_a_digit`. This threshold rejects at most\n{100 * policy['rejected_share']:g} % of "
        "digits (conformal prediction on the calibration split)."
    )


def footprint(figures: Figures) -> str:
    found = figures["footprint"]
    return (
        f"The core installation takes {found['install_mb']:.0f} MB. `inkdigits serve` sends its "
        f"first response {found['first_answer_s']['median']:.1f} s after it starts.\nIts processes "
        f"then use {found['resident_mb_median']:.0f} MB of memory."
    )


def cost(figures: Figures) -> str:
    found = figures["capacity"]
    times = found["cpu_ms"] | {"request to the model service": found["queues"]["alone"]["mean_ms"]}
    rows = (
        f"{name} | {ms:.2f} ms | {1000 / ms:,.0f} | {ms / 3.6 / TARGET:,.2f}"
        for name, ms in times.items()
    )
    heading = "Picture | CPU time | Pictures per core and second | Core-hours per million"
    return table(heading, "lrrr", rows)


def needs(figures: Figures) -> str:
    row, queues = figures["capacity"]["log"]["per_row"], figures["capacity"]["queues"]
    cores = queues["alone"]["mean_ms"] / 1000 / TARGET
    rows = (
        f"{rate:,} | {rate * cores:,.0f} | {rate * cores * queues['replica_mb'] / 1000:,.1f} GB "
        f"| {rate * row['cpu_us'] / 1e6:.1f} | {rate * row['wal_bytes'] / 1e6:,.0f} MB/s "
        f"| {rate * 86_400 * row['bytes'] / 1e9:,.0f} GB"
        for rate in (1000, 10_000, 100_000)
    )
    heading = "Requests per second | Cores and replicas | Memory | PostgreSQL cores"
    return table(heading + " | Write-ahead log | Log per day", "rrrrrr", rows)


def log_rows(figures: Figures) -> str:
    row = figures["capacity"]["log"]["per_row"]
    return (
        f"In PostgreSQL, a row of the log with its indexes takes {row['bytes']:,.0f} bytes. A "
        f"gigabyte contains {1e9 / row['bytes']:,.0f} rows.\nIn transactions of 32 rows, one "
        f"PostgreSQL process needs {row['cpu_us']:.0f} microseconds of CPU time per row."
    )


def memory(figures: Figures) -> str:
    bulk, replica = figures["bulk"], figures["capacity"]["queues"]["replica_mb"]
    serve = figures["serving"]["results"]["inkdigits serve (page and log)"]["resident_mb"]
    few, many = (f"{r['peak_mb']:.0f} MB for {r['rows']:,}" for r in bulk["local"]["runs"])
    return (
        f"A replica of the model service with one worker takes {replica:.0f} MB of memory. "
        f"`inkdigits serve` with page, log\nand two workers takes {serve:.0f} MB. A bulk run with "
        f"{bulk['workers']} workers takes {few} rows of an array\nand {many} rows. The figures for "
        "bulk runs count shared memory once per process."
    )


def predicted(figures: Figures) -> str:
    rows = [
        f"{row['replicas']} | {row['rate']} | {row['n']:,} | {row['predicted_p99_ms']:.1f} ms "
        f"| {row['measured_p99_ms']:.1f} ms | {100 * row['error']:+.0f} %"
        for row in figures["capacity"]["queues"]["rows"]
    ]
    heading = "Replicas | Requests per second | n | p99, predicted | p99, measured | Difference"
    return table(heading, "rrrrrr", rows)


def autoscaling(figures: Figures) -> str:
    rows = [
        f"{row['doubles']} | {100 * row['target']:.0f} % | {row['start_s']:.0f} s "
        f"| {row['longest_wait_s']:.1f} s | {row['seconds_late']} s"
        for row in figures["capacity"]["autoscaling"]
    ]
    heading = "The load doubles | Target | Pod start | Longest wait | Time with waits over 250 ms"
    return table(heading, "lrrrr", rows)


OF_MODEL = (model, parts, scores, forms, digits, non_digits, mild, summary, int8, numbers, cells)
OF_POLICY = (temperature, threshold, risks, novelty)
OF_COST = (footprint, rates, cost, memory, needs, log_rows, predicted, autoscaling)
BLOCKS: dict[str, Callable[[Figures], str]] = {
    f.__name__: f for f in (*OF_MODEL, *OF_POLICY, *OF_COST)
}


def rewritten(repository: Path) -> dict[str, str]:
    """Return the text of the documents with the figures; ValueError says which do not fit."""
    figures = {"run": json.loads((repository / RUN).read_text())}
    figures["plain"] = inkdigits.load("MNISTClassifier").metadata.provenance["test"]
    version = figures["run"]["model_version"]
    for name, path in RESULTS.items():
        result = json.loads((repository / path).read_text())
        if result.get("model_version", version) != version:
            raise ValueError(
                f"{name}.json is of {result['model_version']}, run.json of {version}: "
                f"run benchmarks/{name}.py again"
            )
        figures[name] = result

    def block(match: re.Match[str]) -> str:
        if match[1] not in BLOCKS:
            raise ValueError(f"no figures are called {match[1]!r}: {', '.join(BLOCKS)}")
        return f"<!-- figures: {match[1]} -->\n{BLOCKS[match[1]](figures)}\n<!-- end -->"

    pattern = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
    return {name: pattern.sub(block, (repository / name).read_text()) for name in DOCUMENTS}


if __name__ == "__main__":
    for document, text in rewritten(REPOSITORY).items():
        (REPOSITORY / document).write_text(text)
        print(f"wrote {document}")
