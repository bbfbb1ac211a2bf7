"""The models that come with the workbook have learnt what the README says, and damage to them is noticed."""

import json
import pickle
import shutil

import pytest
import timm
import tiny
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from selfie_lite import PatchNetwork, load_dataset, sample_masks
from selfie_lite.data.catalog import BUNDLED
from selfie_lite.training.checkpoint import CheckpointError, checkpoint_damage, find_checkpoint
from selfie_lite.training.classifier import load_classifier
from selfie_lite.training.pretrain import make_model, pretrain
from selfie_lite.training.weights import BUNDLED_MODELS, load_patch_network, load_pretrained, pretrained_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run, and the folder that it lies in."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.make_data(folder / "cache")
        config = tiny.config(steps=4, save_every=2, keep=2)
        pretrain(config)
    return folder, config


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_bundled_model_is_whole_small_and_documented(name):
    folder = pretrained_folder(name)
    assert checkpoint_damage(folder) == ""
    assert (folder / "model.safetensors").stat().st_size < 8e6
    assert json.loads((folder / "checkpoint.json").read_text())["config"]["queries"] == name.removesuffix("_224")
    assert len(json.loads((folder / "environment.json").read_text())["commit"]) == 12


def test_the_model_of_photographs_is_better_than_guessing():
    """A little: it was trained for 200 steps. On the bundled photos, over twenty masks of each."""
    model, photos = load_pretrained("location_224"), load_dataset("photos").images
    assert (model.grid.image_size, model.grid.count, model.num_masked) == (224, 49, 12)
    with torch.no_grad():
        masks = [sample_masks(10, model.grid, 12, generator=torch.Generator().manual_seed(s)) for s in range(5)]
        assert sum(float(model(photos, *mask).accuracy) for mask in masks) / 5 > 1 / 12 + 0.02


@pytest.mark.parametrize("name", ["additive", "mask_token"])
def test_a_bundled_model_places_test_patches_as_well_as_its_metrics_say(name):
    model = load_pretrained(name)
    assert not model.training and model.query_form == name
    images = load_dataset("sample", "test").images[:400]
    visible, masked = sample_masks(len(images), model.grid, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        out = model(images, visible, masked)
    lines = [json.loads(line) for line in (pretrained_folder(name) / "metrics.jsonl").read_text().splitlines()]
    recorded = [line["held_out_accuracy"] for line in lines if "held_out_accuracy" in line][-1]
    assert abs(out.accuracy - recorded) < 0.04 and recorded > 0.55  # guessing gives 0.25
    readme = (BUNDLED.parent / "README.md").read_text(encoding="utf-8")
    steps = lines[-1]["step"]
    assert f"| {name} | {steps:,} | {recorded:.3f} | 0.250 |" in readme


def test_a_run_is_loaded_by_name_by_folder_and_by_checkpoint(run, monkeypatch):
    folder, config = run
    monkeypatch.chdir(folder)
    checkpoint = find_checkpoint(folder / "runs/tiny/checkpoint")
    expected = load_file(checkpoint / "model.safetensors")
    for source in ("tiny", "runs/tiny", folder / "runs/tiny", checkpoint):
        weights = load_pretrained(source).state_dict()
        assert all(torch.equal(weights[key], value) for key, value in expected.items())
    untrained = make_model(config).state_dict()
    assert not torch.equal(untrained["patch_network.conv1.weight"], expected["patch_network.conv1.weight"])
    earlier = load_pretrained(find_checkpoint(folder / "runs/tiny/checkpoint", "2")).state_dict()
    assert not torch.equal(earlier["patch_network.conv1.weight"], expected["patch_network.conv1.weight"])


def test_damage_and_wrong_names_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pretrained_folder("additive"), tmp_path / "copy")
    file = tmp_path / "copy/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged .model.safetensors is not what was written"):
        load_pretrained(tmp_path / "copy")
    file.unlink()
    with pytest.raises(CheckpointError, match="model.safetensors is missing"):
        load_pretrained(tmp_path / "copy")
    with pytest.raises(ValueError, match="Did you mean 'additive'"):
        load_pretrained("aditive")
    with pytest.raises(CheckpointError, match="no run and no checkpoint in no/such"):
        load_pretrained("no/such")
    (tmp_path / "runs/begun/checkpoint").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        load_pretrained("begun")


def test_weights_come_back_from_torchvision_timm_and_the_hub(tmp_path):
    model, other = torchvision.models.resnet50(), timm.create_model("resnet50")
    save_file(model.state_dict(), tmp_path / "tv.safetensors")
    torch.save(other.state_dict(), tmp_path / "timm.pth")
    PatchNetwork("resnet18", "small").save_pretrained(tmp_path / "hub")
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    hub = PatchNetwork.from_pretrained(tmp_path / "hub")
    for source, theirs, form in [
        ("tv.safetensors", model, ("resnet50", "imagenet")),
        ("timm.pth", other, ("resnet50", "imagenet")),
        ("hub", hub, ("resnet18", "small")),
    ]:
        p = load_patch_network(tmp_path / source)
        assert (p.arch, p.stem) == form and not p.training
        weights = theirs.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in p.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("page.pth", b"<!doctype html><html>", "a web page, not weights"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer, not weights"),
        ("empty.pth", b"", "is empty, not weights"),
        ("cut.safetensors", b"\x10\x00\x00", "cut short, or something else"),
    ],
)
def test_files_that_are_no_weights_are_told_by_what_they_are(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_patch_network(tmp_path / name)


def test_other_weights_are_told(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    save_file(torchvision.models.resnet34().state_dict(), tmp_path / "34.safetensors")
    for name, message in {
        "linear.pth": "holds no conv1.weight",
        "list.pth": "no state dict",
        "module.pth": "Python objects",
        "34.safetensors": "first three blocks of a resnet50 or resnet18",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_patch_network(tmp_path / name)


# Weights in other forms


@pytest.fixture(scope="module")
def resnet18():
    return torchvision.models.resnet18().state_dict()


def put_before(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: put_before("module.", w),
        lambda w: put_before("_orig_mod.", w),
        lambda w: put_before("module._orig_mod.backbone.", w),
        lambda w: put_before("encoder.", w),
        lambda w: put_before("patch_network.", w),
        lambda w: {"state_dict": put_before("module.encoder.", w), "epoch": 3, "optimizer": {"state": {0: [1, 2]}}},
        lambda w: {"model": w, "lr": 0.1},
        lambda w: {"model": {"state_dict": put_before("backbone.", w)}},
        lambda w: put_before("backbone.", w) | put_before("model.backbone.", w) | {"head.weight": torch.zeros(2)},
        lambda w: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in w.items()},
        lambda w: {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in w.items()},
        lambda w: {name: tensor for name, tensor in w.items() if "num_batches_tracked" not in name},
        lambda w: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in w.items()},
    ],
)
def test_state_dicts_in_other_forms_are_loaded_right(wrap, resnet18, tmp_path):
    torch.save(wrap(resnet18), tmp_path / "w.pth")
    p = load_patch_network(tmp_path / "w.pth")
    assert (p.arch, p.stem, p.training) == ("resnet18", "imagenet", False)
    for name, tensor in p.state_dict().items():
        expected = resnet18[name].half() if "half" in str(wrap) else resnet18[name]
        if not name.endswith("num_batches_tracked"):
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-5)


def test_a_safetensors_file_may_have_another_ending_and_the_other_way_round(resnet18, tmp_path):
    save_file({n: t.bfloat16() if t.is_floating_point() else t for n, t in resnet18.items()}, tmp_path / "a.bin")
    torch.save(resnet18, tmp_path / "b.safetensors")
    for name in ("a.bin", "b.safetensors"):
        assert load_patch_network(tmp_path / name).conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: put_before("q.", w) | {n: t + 1 for n, t in put_before("k.", w).items()}, "several networks.*'k.'"),
        (lambda w: w | {"conv1.weight": w["conv1.weight"] * float("nan")}, "conv1.weight holds values .*NaN"),
        (lambda w: w | {"bn1.running_var": torch.full((64,), float("inf"))}, "bn1.running_var holds values"),
        (lambda w: w | {"conv1.weight": torch.zeros(())}, "conv1.weight has the shape"),
        (lambda w: w | {"bn1.weight": torch.ones(32)}, "size mismatch for bn1.weight"),
        (lambda w: w | {"bn1.weight": torch.ones(64, dtype=torch.int64)}, "bn1.weight is stored as torch.int64"),
        (lambda w: {n: t for n, t in w.items() if n != "bn1.running_mean"}, "lacks bn1.running_mean"),
        (lambda w: {n: t for n, t in w.items() if n != "conv1.weight"}, "holds no conv1.weight"),
        (lambda w: {"a": {"b": {}}}, "no state dict"),
        (lambda w: {}, "no state dict"),
    ],
)
def test_state_dicts_that_cannot_be_are_told(change, message, resnet18, tmp_path):
    torch.save(change(resnet18), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_patch_network(tmp_path / "w.pth")


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("trapped", "w"))


def test_no_code_of_others_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, "trap.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pth", "plain.pkl"):
        with pytest.raises(CheckpointError, match="Python objects, a whole model perhaps"):
            load_patch_network(name)
    assert not (tmp_path / "trapped").exists()


def test_files_cut_anywhere_are_told(resnet18, tmp_path):
    torch.save(resnet18, tmp_path / "whole.pth")
    torch.save(resnet18, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(resnet18, tmp_path / "whole.safetensors")
    for name in ("whole.pth", "legacy.pth", "whole.safetensors"):
        content = (tmp_path / name).read_bytes()
        for length in (1, 7, 9, 100, 3000, len(content) // 2, len(content) - 1):
            (tmp_path / "cut").write_bytes(content[:length])
            with pytest.raises(CheckpointError, match="cut"):
                load_patch_network(tmp_path / "cut")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "is damaged"),
        ("[]", "it holds list"),
        ('{"step": "three", "config": {}, "sha256": {}}', "'step' is 'three', not int"),
        ('{"step": 3, "config": [], "sha256": {}}', "'config' is"),
        ('{"step": 3, "config": {}}', "it has no 'sha256'"),
        ('{"step": 3, "config": {}, "sha256": {}}', "no SHA-256 of the weights"),
        ('{"step": 3, "config": {"steps": "many"}, "sha256": SHA}', "settings that cannot be used: steps takes a int"),
        ('{"step": 3, "config": {"stepz": 1}, "sha256": SHA}', "no setting 'stepz'"),
        ('{"step": 3, "config": {}, "sha256": SHA}', "does not hold such a model"),
    ],
)
def test_a_description_of_another_form_is_told(description, message, tmp_path):
    source = pretrained_folder("additive")
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    sha = json.loads((source / "checkpoint.json").read_text())["sha256"]
    (tmp_path / "checkpoint.json").write_text(description.replace("SHA", json.dumps(sha)))
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("load", [load_pretrained, load_patch_network, load_classifier])
@pytest.mark.parametrize("wrong", [None, 3, "", b"additive", ["additive"], "x" * 300, "~nobody-of-this-name/x"])
def test_names_of_other_types_are_told(load, wrong):
    with pytest.raises(CheckpointError, match="say a name, a file or a folder|cannot be a name or a folder"):
        load(wrong)
