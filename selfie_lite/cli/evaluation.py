"""selfie-lite evaluate | compare: what runs are worth."""

import click

from selfie_lite.cli.base import Number, ResultFile, Text, app, print_table, result_file, write_result


@app.command()
@click.option("--from", "sources", type=Text(), multiple=True, default=["additive"], help="As in finetune; repeatable.")
@click.option("--data", type=Text(), default="sample", help="A data set, or a folder of images.")
@click.option("--labels", type=Number(float, 0, 1), default=1.0, help="Part of the training labels for the probes.")
@click.option("--seed", type=Number(int, 0, 2**63 - 1), default=0, help="Which part, and of the fresh P.")
@click.option("--image-size", type=Number(int, 8, 4096), help="Of images in a folder, pixels.")
@result_file("evaluate", "runs/evaluate.json")
def evaluate(sources, data, labels, seed, image_size, file):
    """How much a frozen P knows of the classes: a weighted nearest-neighbour and a linear probe on its features, beside
    those of a fresh P and of raw pixels."""
    from selfie_lite.evaluation.probes import evaluate_features

    result = evaluate_features(sources, data, labels, seed, image_size)
    rows = [(row["features"], f"{row['knn']:.3f}", f"{row['linear']:.3f}") for row in result["rows"]]
    rows.append(("guessing", *2 * [f"{1 / result['classes']:.3f}"]))
    print_table(("features", "nearest neighbours", "linear"), rows)
    write_result(file, result)


@app.command()
@click.argument("runs", type=Text(), nargs=-1)
@click.option("--out", "file", type=ResultFile("compare"), help="Write the comparison there, as JSON.")
def compare(runs, file):
    """Finished RUNS (names or folders) side by side: settings that differ, and the held-out accuracy of each seed."""
    from selfie_lite.evaluation.results import compare_runs

    result = compare_runs(runs)
    names = list(result["rows"][0]["changed"])
    rows = []
    for row in result["rows"]:
        seeds = ", ".join(f"{accuracy:.3f} ({seed})" for seed, accuracy in row["accuracy"].items())
        rows.append((*(row["changed"][name] for name in names), f"{row['median_accuracy']:.3f}", seeds))
    print_table((*names, "median held-out accuracy", "of each seed"), rows)
    if file:
        write_result(file, result)
