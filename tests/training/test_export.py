"""What is exported loads into torchvision, timm, the hub and back, and nothing is ever written over."""

import numpy as np
import pytest
import timm
import tiny
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from selfie_lite import PatchNetwork, load_dataset, sample_masks
from selfie_lite.augment import normalize
from selfie_lite.errors import SelfieLiteError
from selfie_lite.training.checkpoint import CheckpointError, find_checkpoint
from selfie_lite.training.export import export, export_pretrained
from selfie_lite.training.finetune import finetune, load_classifier
from selfie_lite.training.pretrain import pretrain
from selfie_lite.training.weights import load_patch_network, load_pretrained


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


def small_stem(model):
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def features_of(model, images, layers):
    """What the third block of torchvision's or timm's ResNet gives, averaged over the image."""
    x = images
    for name in layers:
        x = getattr(model, name)(x)
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize(("arch", "stem"), [("resnet50", "imagenet"), ("resnet50", "small"), ("resnet18", "imagenet")])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_exported_weights_load_and_give_the_same_features(arch, stem, library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patch_network = PatchNetwork(arch, stem)
    with torch.no_grad():
        patch_network(torch.randn(4, 1, 3, 64, 64))  # so that the running statistics are no longer those of birth
    patch_network.eval().save_pretrained(tmp_path / "p")
    said = export(tmp_path / "p", "torchvision", tmp_path / "out.safetensors")
    assert (f"torchvision.models.{arch}()" in said) and ("nn.Conv2d(3, 64, 3" in said) == (stem == "small")
    model = getattr(torchvision.models, arch)() if library == "torchvision" else timm.create_model(arch)
    model = small_stem(model) if stem == "small" else model
    missing, unexpected = model.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=False)
    assert unexpected == [] and {name.split(".")[0] for name in missing} == {"layer4", "fc"}
    activation = "relu" if library == "torchvision" else "act1"
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        layers = ["conv1", "bn1", activation, "maxpool", "layer1", "layer2", "layer3"]
        found, expected = features_of(model.eval(), images, layers), patch_network(images[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_command_exports_every_form(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    monkeypatch.chdir(folder)
    for form, target in (("torchvision", "w.safetensors"), ("hub", "hub"), ("bundle", "bundle")):
        assert tiny.run_command(monkeypatch, *f"export --from runs/tiny --to {form} {tmp_path / target}".split()) == 0
    said = capsys.readouterr().out
    assert "PatchNetwork.from_pretrained" in said and "load_pretrained" in said and "load_state_dict" in said
    p = load_pretrained("tiny").patch_network
    images = normalize(load_dataset("tiny").images[:4])[:, None]
    with torch.no_grad():
        for source in ("w.safetensors", "hub"):
            found = load_patch_network(tmp_path / source)(images)
            np.testing.assert_allclose(found.numpy(), p(images).numpy(), rtol=1e-5, atol=1e-6)
    card = (tmp_path / "hub/README.md").read_text()
    assert "PatchNetwork.from_pretrained" in card and '"batch_size": 8' in card
    for form, target, message in [
        ("hub", "hub", "not empty: name a new folder"),
        ("torchvision", "w.safetensors", "not empty: name a new file"),
        ("torchvision", "w.bin", "ends in .safetensors"),
        ("onnx", "x", "unknown form 'onnx'"),
    ]:
        with pytest.raises(SelfieLiteError, match=message):
            export("tiny", form, tmp_path / target)


def test_a_classifier_is_exported_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.make_labelled(tmp_path / "cache")
    finetune(tiny.finetune_config(test=False))
    with pytest.raises(CheckpointError, match="fine is a fine-tuned classifier"):
        export("fine", "bundle", tmp_path / "bundle")
    said = export("fine", "torchvision", tmp_path / "c.safetensors")
    assert "resnet18(num_classes=3)" in said
    model = small_stem(torchvision.models.resnet18(num_classes=3))
    model.load_state_dict(load_file("c.safetensors"))  # strict
    images = normalize(load_dataset("colours", "test").images[:4])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), load_classifier("fine")(images))
