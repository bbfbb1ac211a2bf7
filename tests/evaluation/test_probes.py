"""Probes against plain references and where the answer is known; tables of results; the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from selfie_lite import PatchGrid, PatchNetwork, load_dataset, patchify
from selfie_lite.augment import normalize
from selfie_lite.evaluation.probes import (
    effective_rank,
    embed,
    evaluate_features,
    knn_accuracy,
    linear_probe,
    recalibrated,
)

rng = np.random.default_rng(0)


def separable(count, dim=8, classes=4):
    """Well separated clouds, one a class."""
    y = np.arange(count) % classes
    centers = 6 * np.eye(classes, dim)
    return (centers[y] + rng.normal(size=(count, dim))).astype(np.float32), y


def plain_knn(x, y, test_x, neighbors, temperature):
    """One test image after the other, with loops."""
    guesses = []
    for one in test_x:
        similar = [one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in x]
        votes = np.zeros(y.max() + 1)
        for i in sorted(range(len(x)), key=lambda i: -similar[i])[:neighbors]:
            votes[y[i]] += np.exp(similar[i] / temperature)
        guesses.append(votes.argmax())
    return np.array(guesses)


@pytest.mark.parametrize(("neighbors", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5)])
def test_nearest_neighbours_equal_a_plain_reference(neighbors, temperature):
    x, y = rng.normal(size=(90, 6)), rng.integers(0, 3, 90)
    test_x, test_y = rng.normal(size=(60, 6)), rng.integers(0, 3, 60)
    expected = (plain_knn(x, y, test_x, neighbors, temperature) == test_y).mean()
    assert knn_accuracy(x, y, test_x, test_y, neighbors, temperature) == pytest.approx(expected)


def test_probes_separate_what_is_separable_and_guess_where_labels_are_shuffled():
    x, y = separable(600)
    test_x, test_y = separable(600)
    accuracy, strength = linear_probe(x, y, test_x, test_y, 500)
    assert accuracy > 0.97 and strength > 0
    assert knn_accuracy(x, y, test_x, test_y) > 0.97
    shuffled = rng.permutation(y)
    chance = 1 / 4
    assert abs(linear_probe(x, shuffled, test_x, rng.permutation(test_y), 500)[0] - chance) < 0.08
    assert abs(knn_accuracy(x, shuffled, test_x, rng.permutation(test_y)) - chance) < 0.08


def test_the_strength_is_not_chosen_on_the_test_images():
    x, y = separable(200)
    chosen = {linear_probe(x, y, x[:50], rng.integers(0, 4, 50), 150)[1] for _ in range(3)}
    assert len(chosen) == 1


def test_features_are_the_mean_of_the_third_block_in_any_batch_size(monkeypatch):
    monkeypatch.setattr("selfie_lite.evaluation.probes.has_native_bf16", lambda device: False)
    network, dataset = PatchNetwork("resnet18", "small").eval(), load_dataset("sample", "test")
    indices = torch.tensor([5, 2, 9, 700])
    features = embed(network, dataset, indices, batch_size=3)
    with torch.no_grad():
        expected = network(normalize(dataset.images[indices])[:, None])[:, 0]  # a whole image as one patch
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)
    raw = embed(None, dataset, indices)
    np.testing.assert_allclose(raw, normalize(dataset.images[indices]).flatten(1).numpy())
    photos = load_dataset("photos")
    assert embed(None, photos, torch.arange(2)).shape == (2, 3 * 32 * 32)


def test_trained_beats_fresh_and_raw_on_the_sample(monkeypatch):
    def fewer(*words):
        dataset = load_dataset(*words)
        return replace(dataset, images=dataset.images[:4000:2], labels=dataset.labels[:4000:2])

    labels = torch.arange(4000)[::2] % 10
    assert labels.unique().tolist() == [0, 2, 4, 6, 8], "half of the sample, every other image, has half of the classes"
    monkeypatch.setattr("selfie_lite.evaluation.probes.load_dataset", fewer)
    monkeypatch.setattr("selfie_lite.evaluation.probes.STRENGTHS", [1e-4, 1e-2, 1e-1])
    result = evaluate_features(["additive"], "sample", labels=0.25)
    rows = {row["features"]: row for row in result["rows"]}
    assert list(rows) == ["additive", "fresh resnet18", "raw pixels"]
    assert rows["additive"]["linear"] > rows["fresh resnet18"]["linear"] + 0.03
    assert all(0.2 < row["knn"] < 0.75 and 0.2 < row["linear"] < 0.75 for row in rows.values())
    assert (result["training_images"], result["test_images"], result["classes"]) == (500, 500, 10)
    assert rows["additive"]["dim"] == 256 and rows["raw pixels"]["dim"] == 3072
    assert all(1 < row["rank"] < row["dim"] for row in rows.values())


def test_the_effective_rank_of_known_features():
    basis = np.linalg.qr(rng.normal(size=(200, 8)))[0]
    basis -= basis.mean(axis=0)
    assert effective_rank(np.linalg.qr(basis)[0]) == pytest.approx(8, rel=1e-3)
    line = rng.normal(size=(100, 1)) * np.ones((1, 5)) + 7
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert effective_rank(np.ones((9, 4))) == pytest.approx(1)
    assert effective_rank(np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])) == pytest.approx(4 / 3**0.75)


def test_two_stems_have_a_floor_each(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    tiny.make_labelled(tmp_path / "cache")
    for stem in ("small", "imagenet"):
        PatchNetwork("resnet18", stem).save_pretrained(tmp_path / stem)
    rows = evaluate_features([tmp_path / "small", tmp_path / "imagenet"], "colours")["rows"]
    names = [row["features"] for row in rows]
    assert names[2:] == ["fresh resnet18", "fresh resnet18, imagenet stem", "raw pixels"]


def test_the_command_prints_a_table_and_writes_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    tiny.make_labelled(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    words = "evaluate --from additive --from mask_token --data colours --out r.json".split()
    assert tiny.run_command(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "mask_token" in said and "fresh resnet18" in said and "raw pixels" in said and "0.333" in said
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["data"] == "colours" and len(result["rows"]) == 4 and result["environment"]["commit"]
    assert result["command"].startswith("selfie-lite evaluate --from additive")


def test_features_of_patches_are_the_mean_over_an_images_patches(monkeypatch):
    monkeypatch.setattr("selfie_lite.evaluation.probes.has_native_bf16", lambda device: False)
    network, dataset, grid = PatchNetwork("resnet18", "small").eval(), load_dataset("sample", "test"), PatchGrid(32, 8)
    found = embed(network, dataset, torch.arange(3), batch_size=2, grid=grid)
    with torch.no_grad():
        expected = network(patchify(normalize(dataset.images[:3]), grid)).mean(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_recalibration_takes_the_statistics_of_whole_images_and_leaves_the_original(monkeypatch):
    network, dataset = PatchNetwork("resnet18", "small").eval(), load_dataset("sample", "train")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    other = recalibrated(network, dataset, torch.arange(60))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        seen = network.conv1(normalize(dataset.images[:60]))  # what the first normalisation sees
    torch.testing.assert_close(other.bn1.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert not other.training and torch.equal(other.conv1.weight, network.conv1.weight)
