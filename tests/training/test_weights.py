"""The models that come with the workbook have learnt what the README says, and damage to them is noticed."""

import json
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
    assert json.loads((folder / "checkpoint.json").read_text())["config"]["queries"] == name
    assert len(json.loads((folder / "environment.json").read_text())["commit"]) == 12


@pytest.mark.parametrize("name", BUNDLED_MODELS)
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
        ("page.pth", b"<!doctype html><html>", "is a web page, not weights"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
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
