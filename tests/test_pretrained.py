"""The models that come with the workbook have learnt what the README says, and damage to them is noticed."""

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

from selfie_lite import load_dataset, sample_masks
from selfie_lite.checkpoint import CheckpointError, checkpoint_damage, find_checkpoint
from selfie_lite.data import BUNDLED
from selfie_lite.errors import SelfieLiteError
from selfie_lite.pretrain import make_model, pretrain
from selfie_lite.pretrained import BUNDLED_MODELS, export_pretrained, load_pretrained, pretrained_folder


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
    images = load_dataset("sample", "test").images
    visible, masked = sample_masks(len(images), model.grid, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        out = model(images, visible, masked)
    lines = [json.loads(line) for line in (pretrained_folder(name) / "metrics.jsonl").read_text().splitlines()]
    recorded = [line["held_out_accuracy"] for line in lines if "held_out_accuracy" in line][-1]
    assert abs(out.accuracy - recorded) < 0.03 and recorded > 0.55  # guessing gives 0.25
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


def test_a_bundle_is_half_the_size_and_gives_nearly_the_same_logits(run, tmp_path, monkeypatch):
    folder, config = run
    monkeypatch.chdir(folder)
    bundle = export_pretrained("tiny", tmp_path / "bundle")
    assert {path.name for path in bundle.iterdir()} == {
        "model.safetensors", "checkpoint.json", "metrics.jsonl", "environment.json"
    }  # fmt: skip
    whole = (find_checkpoint(folder / "runs/tiny/checkpoint") / "model.safetensors").stat().st_size
    assert (bundle / "model.safetensors").stat().st_size < 0.6 * whole
    images = load_dataset("tiny").images[:8]
    masks = sample_masks(8, config.grid, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        small, full = (load_pretrained(source)(images, *masks).logits for source in (bundle, "tiny"))
    assert not torch.equal(small, full)
    torch.testing.assert_close(small, full, rtol=0.01, atol=0.01 * full.abs().max().item())
    with pytest.raises(SelfieLiteError, match="not empty"):
        export_pretrained("tiny", bundle)


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
