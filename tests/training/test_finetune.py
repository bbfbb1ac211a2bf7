"""Fine-tuning: what comes from P and what is fresh, which labels are used, and that both arms get the same."""

import importlib
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from runs import finetune_with, in_processes, use_tiny_network
from tiny import config as pretrain_config
from tiny import finetune_config, make_data, make_labelled
from tiny import run_command as run
from torch import nn

from selfie_lite import PatchGrid, PatchNetwork, Selfie, SelfieLiteError, load_dataset
from selfie_lite.augment import normalize
from selfie_lite.training.checkpoint import CheckpointError, find_checkpoint, list_checkpoints, load_checkpoint
from selfie_lite.training.finetune import (
    FINETUNE_PRESETS,
    FinetuneConfig,
    finetune,
    labelled_subset,
    load_classifier,
    make_classifier,
    read_metrics,
    require_same_classes,
    resnet50_classifier,
    search_learning_rate,
)
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.weights import BUNDLED_MODELS, known_models, load_pretrained

finetune_module, results, classifier = (
    importlib.import_module(f"selfie_lite.training.{name}") for name in ("finetune", "results", "classifier")
)


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """A run of each arm, ended: the folder that they lie in, the images that each saw, the parts that it evaluated."""
    folder, seen, order = tmp_path_factory.mktemp("arms"), {}, {}
    plain_normalize, plain_evaluate = classifier.normalize, classifier.evaluate_classifier

    def spy(images):
        seen[name].append(images.clone())
        return plain_normalize(images)

    def note(model, dataset, *rest):
        order[name].append(dataset.split)
        return plain_evaluate(model, dataset, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIE_LITE_DATA", str(folder / "cache"))
        make_labelled(folder / "cache")
        patch.chdir(folder)
        for module in (finetune_module, classifier):
            patch.setattr(module, "normalize", spy)
        for module in (finetune_module, results):
            patch.setattr(module, "evaluate_classifier", note)
        use_tiny_network(patch)
        PatchNetwork("resnet18", "small").save_pretrained("p")
        for name, source in (("scratch", "scratch"), ("pretrained", "p")):
            seen[name], order[name] = [], []
            finetune(finetune_config(name=name, pretrained=source, results="all.jsonl"))
    return folder, seen, order


@pytest.fixture
def ended(arms):
    """A copy of those two runs in the test's own folder."""
    shutil.copytree(arms[0] / "runs", "runs")
    shutil.copytree(arms[0] / "p", "p")
    shutil.copy(arms[0] / "all.jsonl", "all.jsonl")


@pytest.fixture
def whole_network():
    """For tests that look at ResNet-18 itself, not at what is done with it."""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, request):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    make_labelled(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    if "whole_network" not in request.fixturenames:
        use_tiny_network(monkeypatch)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


# The network


@pytest.mark.parametrize(("arch", "stem"), [("resnet50", "small"), ("resnet50", "imagenet"), ("resnet18", "small")])
def test_every_tensor_of_p_is_copied_bit_for_bit_and_the_rest_is_fresh(arch, stem, whole_network):
    patch_network = PatchNetwork(arch, stem)
    for buffer in patch_network.buffers():
        buffer.add_(1)  # as training leaves them, not as they are made
    model = resnet50_classifier(patch_network, num_classes=7)
    theirs, ours = model.state_dict(), patch_network.state_dict()
    assert {name.split(".")[0] for name in theirs.keys() - ours.keys()} == {"layer4", "fc"}
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert model.fc.weight.shape == (7, 2048 if arch == "resnet50" else 512)
    other = resnet50_classifier(patch_network, num_classes=7).state_dict()
    drawn = [name for name in theirs.keys() - ours.keys() if theirs[name].ndim >= 2]
    assert drawn and not any(torch.equal(theirs[name], other[name]) for name in drawn), "these are drawn anew"
    images = torch.randn(2, 3, 32, 32)
    model.eval(), patch_network.eval()
    maps = patch_network.feature_maps(images)
    expected = model.fc(model.layer4(maps).mean(dim=(2, 3)))
    torch.testing.assert_close(model(images), expected)


def test_p_may_come_as_a_model_or_by_name_and_must_fit(whole_network):
    model = Selfie(PatchGrid(32, 8), "resnet18")
    for source, own in ((model, model.patch_network), ("additive", load_pretrained("additive").patch_network)):
        weights = resnet50_classifier(source).state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in own.state_dict().items())
    assert resnet50_classifier().conv1.kernel_size == (3, 3)
    assert isinstance(resnet50_classifier(stem="imagenet").maxpool, nn.MaxPool2d)
    with pytest.raises(SelfieLiteError, match="P has arch resnet18, but resnet50 was asked for"):
        resnet50_classifier(model, arch="resnet50")
    with pytest.raises(SelfieLiteError, match="P has stem small, but imagenet"):
        resnet50_classifier(model, stem="imagenet")


def test_both_arms_share_every_fresh_weight(whole_network):
    scratch, _ = make_classifier(finetune_config(), 3)
    pretrained, filled = make_classifier(finetune_config(pretrained="additive", arch=""), 3)
    assert (filled.arch, filled.stem) == ("resnet18", "small")
    one, two, p = scratch.state_dict(), pretrained.state_dict(), load_pretrained("additive").patch_network.state_dict()
    for name, tensor in two.items():
        assert torch.equal(tensor, p[name] if name in p else one[name])
    assert not torch.equal(one["layer1.0.conv1.weight"], two["layer1.0.conv1.weight"])
    again, _ = make_classifier(finetune_config(seed=4), 3)
    assert not torch.equal(one["fc.weight"], again.state_dict()["fc.weight"])


# Runs


def test_both_arms_see_the_same_images_in_the_same_order(arms):
    folder, seen, _ = arms
    assert len(seen["scratch"]) == len(seen["pretrained"]) > 6
    assert all(torch.equal(one, two) for one, two in zip(seen["scratch"], seen["pretrained"], strict=True))
    first, second = (result_of(folder / "runs" / name)["config"] for name in seen)
    assert {key for key in first if first[key] != second[key]} == {"name", "pretrained"}


def test_it_learns_and_the_kept_weights_are_the_best_on_the_validation_part(whole_network):
    folder = finetune(finetune_config(steps=24, eval_every=4, save_every=24, learning_rate=3e-3))
    result, lines = result_of(folder), read_metrics(folder)
    evaluated = [line for line in lines if "validation_accuracy" in line]
    assert [line["step"] for line in evaluated] == list(range(4, 25, 4))
    highest = max(line["validation_accuracy"] for line in evaluated)
    chosen = [line for line in evaluated if line["validation_accuracy"] == highest][-1]
    assert result["chosen_step"] == chosen["step"] and result["validation_accuracy"] == highest > 0.8
    model, test = load_classifier("fine"), load_dataset("colours", "test")
    assert not model.training
    with torch.no_grad():
        right = model(normalize(test.images)).argmax(dim=1) == test.labels
        assert result["test_accuracy"] == pytest.approx(right.float().mean().item()) and right.float().mean() > 0.8
        train = load_dataset("colours")
        _, choose = labelled_subset(train.labels, 1.0, 0.1, seed=3)
        right = model(normalize(train.images[choose])).argmax(dim=1) == train.labels[choose]
        assert highest == pytest.approx(right.float().mean().item())
    assert f"test accuracy {result['test_accuracy']:.3f} on 60 images" in (folder / "README.md").read_text()
    assert (folder / "curve.png").stat().st_size > 10_000


def test_weights_of_an_earlier_and_better_evaluation_come_back(monkeypatch):
    accuracies = iter([0.5, 0.9, 0.1])
    seen = []

    def evaluate(model, *_):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return 1.0, next(accuracies)

    monkeypatch.setattr(finetune_module, "evaluate_classifier", evaluate)
    folder = finetune(finetune_config(test=False))
    weights, _, _ = load_checkpoint(find_checkpoint(folder / "checkpoint"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in seen[1].items())
    assert not torch.equal(weights["fc.weight"], seen[2]["fc.weight"])
    result = result_of(folder)
    assert result["chosen_step"] == 4 and "test_accuracy" not in result


@pytest.mark.parametrize("step", ["2", "4"])
def test_resumed_is_bit_for_bit_the_same_its_choice_too(arms, ended, step):
    straight, resumed = arms[0] / "runs/pretrained", Path("runs/pretrained")
    shutil.rmtree(resumed / "checkpoint/00000006")
    (resumed / "result.json").unlink()
    finetune(finetune_config(name="pretrained", pretrained="p", resume=step, results="all.jsonl"))
    weights = [load_checkpoint(find_checkpoint(folder / "checkpoint"))[0] for folder in (straight, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    one, two = result_of(straight), result_of(resumed)
    assert (one["test_accuracy"], one["chosen_step"]) == (two["test_accuracy"], two["chosen_step"])
    assert len(Path("all.jsonl").read_text().splitlines()) == 2, "the same result is not written twice"


def test_a_run_that_has_ended_says_so_and_is_left_as_it_is(ended, monkeypatch, capsys):
    def files():
        return {path: path.read_bytes() for path in [*Path("runs").rglob("*"), Path("all.jsonl")] if path.is_file()}

    before = files()
    words = ["--name", "pretrained", "--resume", "newest", "--results", "all.jsonl"]
    assert run(monkeypatch, "finetune", *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "runs/pretrained has ended: validation accuracy" in said and "nothing to go on with" in said
    assert files() == before
    assert result_of(Path("runs/pretrained"))["seconds"] > 0


def test_a_run_killed_before_its_result_gets_it_and_the_test_images_too_if_they_are_asked_for_later(ended, monkeypatch):
    folder = Path("runs/scratch")
    earlier = result_of(folder)
    (folder / "result.json").unlink()
    finetune(finetune_config(name="scratch", resume="newest", test=False))
    assert "test_accuracy" not in result_of(folder)
    finetune(finetune_config(name="scratch", resume="newest"))
    assert result_of(folder)["test_accuracy"] == earlier["test_accuracy"]
    assert (folder / "README.md").read_text().count("Result (`result.json`)") == 1


def test_stopped_by_a_signal_it_reads_no_test_images_and_goes_on_from_its_own_settings(monkeypatch, capsys):
    def stop(lines):
        if lines[-1]["step"] == 2:
            signal.raise_signal(signal.SIGTERM)

    folder = finetune(finetune_config(labels=0.8), on_log=stop)
    assert [int(path.name) for path in list_checkpoints(folder / "checkpoint")][-1] < 6
    assert not (folder / "result.json").exists()
    assert run(monkeypatch, "finetune", "--name", "fine", "--resume", "newest") == 0
    assert "with those weights test accuracy" in " ".join(capsys.readouterr().out.split())
    assert result_of(folder)["config"]["labels"] == 0.8


def test_the_test_images_are_read_once_and_only_at_the_end(arms):
    assert arms[2] == {arm: ["train", "train", "train", "test"] for arm in ("scratch", "pretrained")}


def test_a_search_gives_both_arms_the_same_and_tests_only_its_winner(monkeypatch):
    PatchNetwork("resnet18", "small").save_pretrained("p")
    for arm, source in (("scratch", "scratch"), ("additive", "p")):
        accuracies = iter([0.3, 0.6])
        monkeypatch.setattr(finetune_module, "evaluate_classifier", lambda *_, found=accuracies: (1.0, next(found)))
        settings = finetune_config(name=arm, pretrained=source, steps=2, eval_every=0, results="all.jsonl")
        folder = search_learning_rate(settings, [1e-5, 3e-3])
        assert folder.name == f"{arm}-0.003"
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(0 <= line["test_accuracy"] <= 1 for line in lines)
    for line in lines:
        searched = line["searched_learning_rates"]
        assert searched == {"1e-05": 0.3, "0.003": 0.6} and line["validation_accuracy"] == 0.6
        assert line["config"]["learning_rate"] == 0.003 and line["config"]["arch"] == "resnet18"
    assert "pretraining" in lines[1] and "test_accuracy" not in result_of(Path("runs/scratch-1e-05"))
    before = result_of(folder)
    again = search_learning_rate(settings.updated(resume="newest"), [1e-5, 3e-3])  # the iterator would be exhausted
    assert again == folder and result_of(folder) == before and len(Path("all.jsonl").read_text().splitlines()) == 2
    for rates, message in [
        ([0.1], "two learning rates or more, but got .0.1"),
        ([0.1, float("nan")], "learning_rate must be above 0 and finite, but is nan"),
        ([0.1, -0.1], "learning_rate must be above 0 and finite, but is -0.1"),
        ([0.1, 0.1000000001], "share a name"),
        ([1e-5, 0.1], "additive-1e-05 already holds a run"),
    ]:
        with pytest.raises(SelfieLiteError, match=message):
            search_learning_rate(settings, rates)
    assert not Path("runs/additive-0.1").exists(), "told before the first run"


def test_a_result_carries_its_circumstances(tmp_path):
    make_data(tmp_path / "cache")
    pretrain(pretrain_config(steps=2, save_every=2))
    settings = finetune_config(steps=2, pretrained="runs/tiny", arch="", labels=0.5, results="out/results.jsonl")
    folder = finetune(settings)
    result = json.loads(Path("out/results.jsonl").read_text())
    assert result == result_of(folder)
    assert result["config"]["pretrained"] == "runs/tiny" and result["config"]["arch"] == "resnet18"
    assert (
        result["pretraining"]["config"]["steps"] == 2
        and len(result["pretraining"]["sha256"]["model.safetensors"]) == 64
    )
    assert result["training_images"] + result["validation_images"] == 30
    assert result["environment"]["versions"]["torch"] and result["seconds"] > 0
    assert FinetuneConfig.from_dict(result["config"]).labels == 0.5
    assert known_models() == [*BUNDLED_MODELS, "tiny"], "a classifier has no puzzle to show"


def test_two_processes_fine_tune_and_write_once():
    in_processes(2, finetune_with, dict(steps=4, results="r.jsonl"))
    assert Path("out.0").read_text().count("test accuracy") == 1 and not Path("out.1").read_text().count("accuracy")
    assert len(Path("r.jsonl").read_text().splitlines()) == 1
    model, test = load_classifier("fine"), load_dataset("colours", "test")
    with torch.no_grad():
        accuracy = (model(normalize(test.images)).argmax(dim=1) == test.labels).float().mean().item()
    assert result_of(Path("runs/fine"))["test_accuracy"] == pytest.approx(accuracy)


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "runs/none"], "there is no run and no checkpoint in runs/none"),
        (["--from", "aditive"], "Did you mean 'additive'"),
        (["--labels", "0"], "above 0 and up to 1, but is 0.0"),
        (["--labels", "1.2"], "above 0 and up to 1, but is 1.2"),
        (["--validation", "0.7"], "above 0 and up to 0.5, but is 0.7"),
        (["--data", "colours", "--image-size", "16", "--labels", "0.01"], "of class red is 0: too few"),
        (
            ["--data", "colours", "--image-size", "16", "--batch-size", "500"],
            "batch_size 500 is more than the 54 images",
        ),
        (["--arch", "resnet50"], "P has arch resnet18, but resnet50 was asked for"),
        (["--preset", "labtop"], "Did you mean 'laptop'"),
        (["--lables", "0.1"], "--labels"),
        (["--data", "photos", "--image-size", "224"], "no test part"),
        (["--search", "0.1"], "two learning rates or more"),
    ],
)
def test_mistakes_are_one_message_before_anything_is_written(words, message, whole_network, monkeypatch, capsys):
    assert run(monkeypatch, "finetune", *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and "Traceback" not in said
    assert not list(Path("runs").glob("*/checkpoint"))


def test_other_classes_to_test_on_are_refused():
    train, test = load_dataset("colours"), load_dataset("sample", "test")
    with pytest.raises(SelfieLiteError, match="colours has 3 classes to train on and 10 others to test on"):
        require_same_classes(train, test)


def test_another_number_of_classes_is_told(ended):
    for wrong in (1, True, 2.0, "10", None):
        with pytest.raises(SelfieLiteError, match=f"num_classes must (lie|be).*, but is {wrong!r}"):
            resnet50_classifier(num_classes=wrong)
    cache = Path("cache/colours")
    description = json.loads((cache / "dataset.json").read_text())
    description = {name: value for name, value in description.items() if name != "description_sha256"}
    (cache / "dataset.json").write_text(json.dumps(description | {"classes": ["a", "b", "c", "d"]}))
    with pytest.raises(CheckpointError, match="the images of colours have changed since"):
        finetune(finetune_config(name="scratch", resume="4"))


def test_a_classifier_is_no_puzzle_solver_and_the_other_way_round(ended):
    with pytest.raises(CheckpointError, match="scratch is a fine-tuned classifier: it has P, but no A"):
        load_pretrained("scratch")
    with pytest.raises(CheckpointError, match="additive was pretrained, not fine-tuned"):
        load_classifier("additive")
    with pytest.raises(CheckpointError, match="learning_rate is 0.001 there and 0.5 here"):
        finetune(finetune_config(name="scratch", resume="newest", learning_rate=0.5))


@pytest.mark.parametrize("wrong", [nn.Linear(2, 2), {"conv1.weight": 1}, 3, b"additive"])
def test_p_of_another_type_is_told(wrong):
    with pytest.raises(SelfieLiteError, match=f"None for fresh weights; not {type(wrong).__name__}"):
        resnet50_classifier(wrong)


def test_a_batch_that_batch_normalisation_cannot_take_is_told():
    with pytest.raises(SelfieLiteError, match="batch_size 1 gives batch normalisation one value.*use 2 or more"):
        finetune(finetune_config(stem="imagenet", batch_size=1))
    for size in (0, -4, 10**6):
        with pytest.raises(SelfieLiteError, match=f"image_size must be 1 or more and up to 4096, but is {size}"):
            finetune_config(image_size=size)


# Files of results


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a diary\n", "line 1, is not the result of a fine-tuning run"),
        ('{"config": {}}\n', "has no 'validation_accuracy'"),
        ("no end of line", "holds no results of fine-tuning runs"),
        ("[1]\n", "line 1"),
        (None, "cannot be written: diary.txt is no file"),
    ],
)
def test_results_are_never_appended_to_what_holds_none(text, message):
    file = Path("diary.txt")
    file.mkdir() if text is None else file.write_text(text)
    with pytest.raises(SelfieLiteError, match=message):
        finetune(finetune_config(results="diary.txt"))
    with pytest.raises(SelfieLiteError, match=message):
        search_learning_rate(finetune_config(results="diary.txt"), [0.1, 0.2])
    assert not Path("runs").exists() and (text is None or file.read_text() == text)


def test_a_place_that_cannot_be_is_told_before_the_work():
    Path("file").write_text("")
    for place, message in {"file/r.jsonl": "is a file, not a folder", "x" * 300: "cannot be a file"}.items():
        with pytest.raises(SelfieLiteError, match=message):
            finetune(finetune_config(results=place))
    assert not Path("runs").exists()


def test_a_line_that_cannot_be_written_in_the_end_does_not_lose_the_run(capsys):
    def spoil(lines):
        Path("out").mkdir(exist_ok=True)
        Path("out/r.jsonl").write_text("written by another program in the meantime\n")

    folder = finetune(finetune_config(steps=2, results="out/r.jsonl"), on_log=spoil)
    said = " ".join(capsys.readouterr().out.split())
    assert "out/r.jsonl got no line" in said and "The result is in runs/fine/result.json" in said
    assert result_of(folder)["test_accuracy"] >= 0
    assert Path("out/r.jsonl").read_text() == "written by another program in the meantime\n"


def test_the_arch_is_that_of_p_whatever_the_preset_says(monkeypatch, tmp_path):
    PatchNetwork("resnet50", "small").save_pretrained(tmp_path / "p50")
    words = ["--data", "colours", "--image-size", "16", "--steps", "1", "--batch-size", "4", "--no-test"]
    assert run(monkeypatch, "finetune", "--from", str(tmp_path / "p50"), *words) == 0
    assert json.loads(Path("runs/finetuned/config.json").read_text())["arch"] == "resnet50"
    assert FINETUNE_PRESETS["laptop"].arch == "resnet18"
