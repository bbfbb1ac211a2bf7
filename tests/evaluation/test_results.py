"""Runs side by side, and tables of results."""

import json
import shutil

import pytest
import tiny

from selfie_lite.errors import SelfieLiteError
from selfie_lite.evaluation.results import compare_runs, fraction_table, read_results


def write_run(folder, accuracy, reached=None, **changes):
    """What `compare_runs` reads of a run: its settings, its metrics, its environment."""
    config = tiny.config(name=folder.name, **changes)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    lines = [{"step": 1, "loss": 2.0}, {"step": 5, "held_out_accuracy": 0.1}]
    lines.append({"step": reached or config.steps, "held_out_accuracy": accuracy})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text(json.dumps({"commit": "abc"}))


def test_seeds_share_a_row_and_the_best_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, accuracy, changes in [
        ("a", 0.3, {"learning_rate": 0.1, "seed": 0}),
        ("b", 0.5, {"learning_rate": 0.2, "seed": 0, "save_every": 1}),
        ("c", 0.7, {"learning_rate": 0.2, "seed": 1, "keep": 9}),
    ]:
        write_run(tmp_path / "runs" / name, accuracy, **changes)
    result = compare_runs(["a", "b", "runs/c"])
    assert result["rows"] == [
        {"changed": {"learning_rate": 0.2}, "median_accuracy": 0.6, "accuracy": {"0": 0.5, "1": 0.7}},
        {"changed": {"learning_rate": 0.1}, "median_accuracy": 0.3, "accuracy": {"0": 0.3}},
    ]
    assert result["chance"] == 0.25 and result["environment"] == [{"commit": "abc"}]
    assert result["same"]["arch"] == "resnet18" and "seed" not in result["same"]


def test_runs_that_cannot_be_compared_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a", 0.3)
    write_run(tmp_path / "runs" / "b", 0.3, reached=11)
    with pytest.raises(SelfieLiteError, match="takes two runs or more, but 1"):
        compare_runs(["a"])
    with pytest.raises(SelfieLiteError, match="runs/b has not reached its last step, 12"):
        compare_runs(["a", "b"])
    with pytest.raises(SelfieLiteError, match="there is no run in runs/c"):
        compare_runs(["a", "c"])
    (tmp_path / "runs/a/config.json").write_text(json.dumps(tiny.finetune_config().to_dict()))
    with pytest.raises(SelfieLiteError, match="runs/a is a fine-tuning run; its result is in runs/a/result.json"):
        compare_runs(["a", "b"])


def result(arm, labels, seed, accuracy, **changes):
    config = tiny.finetune_config(pretrained=arm, labels=labels, seed=seed, name=f"{arm}{seed}").to_dict() | changes
    return {
        "config": config,
        "test_accuracy": accuracy,
        "validation_accuracy": 0.5,
        "training_images": 90,
        "validation_images": 10,
    }


def test_a_table_has_every_run_its_mean_spread_and_gain(tmp_path):
    runs = [result("scratch", 0.1, 0, 0.3), result("scratch", 0.1, 1, 0.5), result("additive", 0.1, 0, 0.9)]
    runs += [result("additive", 0.1, 0, 0.6), result("additive", 1.0, 0, 0.7)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    assert read_results(tmp_path / "none.jsonl") == []
    scratch, additive, whole = fraction_table(read_results(tmp_path / "r.jsonl"))
    assert (scratch["arm"], scratch["labels"], scratch["images"]) == ("scratch", 0.1, 100)
    assert scratch["runs"] == {0: 0.3, 1: 0.5} and scratch["mean"] == pytest.approx(0.4)
    assert scratch["std"] == pytest.approx(0.02**0.5) and scratch["gain"] is None
    assert additive["runs"] == {0: 0.6}, "repeated with the same settings: the later counts"
    assert additive["std"] is None and additive["gain"] == pytest.approx(0.2)
    assert whole["labels"] == 1.0 and whole["gain"] is None


def test_runs_that_are_no_fair_comparison_are_refused():
    with pytest.raises(SelfieLiteError, match="no fair comparison: steps 6 and 60"):
        fraction_table([result("scratch", 0.1, 0, 0.3), result("additive", 0.1, 0, 0.5, steps=60)])
    one, two = result("scratch", 0.1, 0, 0.3), result("additive", 0.1, 0, 0.5, learning_rate=0.1)
    with pytest.raises(SelfieLiteError, match="learning_rate 0.001 and 0.1"):
        fraction_table([one, two])
    for run in (one, two):
        run["searched_learning_rates"] = {"0.001": 0.2, "0.1": 0.3}
    assert len(fraction_table([one, two])) == 2, "the same search may choose differently"


def test_ps_pretrained_for_unequal_budgets_are_refused_unless_that_is_the_point():
    def pretrained(arm, step, batch_size):
        return result(arm, 0.1, 0, 0.5) | {"pretraining": {"step": step, "config": {"batch_size": batch_size}}}

    runs = [result("scratch", 0.1, 0, 0.3), pretrained("a", 100, 64), pretrained("b", 200, 32)]
    assert len(fraction_table(runs)) == 3, "as many images"
    runs.append(pretrained("c", 100, 32))
    with pytest.raises(SelfieLiteError, match="unequal budgets .c 3,200 images; a 6,400 images."):
        fraction_table(runs)
    assert len(fraction_table(runs, unequal_pretraining=True)) == 4


def test_results_of_another_form_are_told(tmp_path):
    file = tmp_path / "r.jsonl"
    good = json.dumps(result("scratch", 0.1, 0, 0.3))
    for bad in ("garbage", "[]", '{"config": 3, "validation_accuracy": 0.5}', '{"config": {}}'):
        file.write_text(f"{good}\n{bad}\n")
        with pytest.raises(SelfieLiteError, match="r.jsonl, line 2, is not the result of a fine-tuning run"):
            read_results(file)
    file.write_text(f"{good}\n{good[:40]}")
    assert len(read_results(file)) == 1, "what a killed process left half written is passed over"
    with pytest.raises(SelfieLiteError, match="row 1 is not the result of a fine-tuning run"):
        fraction_table([{"config": {}}])
    untested = {key: value for key, value in result("scratch", 0.1, 0, 0.3).items() if key != "test_accuracy"}
    with pytest.raises(SelfieLiteError, match="row 1, the run scratch0, has no test accuracy"):
        fraction_table([untested])


def test_files_of_a_run_of_another_form_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        write_run(tmp_path / "runs" / name, 0.3, **({"learning_rate": 0.5} if name == "b" else {}))
    with pytest.raises(SelfieLiteError, match="c has the settings and the seed of another"):
        compare_runs(["a", "b", "c"])
    for name, text, message in [
        ("metrics.jsonl", "{}\n{}\n", "line 1, is not a line of metrics"),
        ("metrics.jsonl", '{"step": 12, "held_out_accuracy": "high"}\n', "has not reached its last step"),
        ("environment.json", "[]", "environment.json is not"),
        ("config.json", "{", "config.json is not the settings of a run"),
        ("config.json", '{"stepz": 1}', "no setting 'stepz'. Did you mean 'steps'"),
    ]:
        (tmp_path / "runs/b" / name).write_text(text)
        with pytest.raises(SelfieLiteError, match=message):
            compare_runs(["a", "b"])
        write = tmp_path / "again"
        write_run(write, 0.3, learning_rate=0.5)
        (write / name).replace(tmp_path / "runs/b" / name)
        shutil.rmtree(write)


@pytest.mark.parametrize("command", ["evaluate", "compare a b", "bench inspector", "bench pretrain"])
def test_out_is_never_written_over_something_else(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text('{"my": "diary"}')
    assert tiny.run_command(monkeypatch, *command.split(), "--out", "mine.json") == 2
    assert "mine.json" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "mine.json").read_text() == '{"my": "diary"}'
