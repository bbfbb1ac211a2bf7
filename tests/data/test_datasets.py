"""Images and labels by name: the bundled samples, ImageNet, and names that are none."""

import hashlib
import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from pictures import write_images
from PIL import Image

from selfie_lite import DatasetNotFoundError, ImageDataset, SelfieLiteError, load_dataset
from selfie_lite.data.catalog import BUNDLED
from selfie_lite.data.importing import import_folder

# The bundled samples


@pytest.mark.parametrize("split, count", [("train", 4000), ("test", 1000)])
def test_sample(split, count):
    dataset = load_dataset("sample", split)
    assert isinstance(dataset, ImageDataset) and (dataset.name, dataset.split) == ("sample", split)
    assert dataset.images.shape == (count, 3, 32, 32) and dataset.images.dtype == torch.uint8
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.bincount().tolist() == [count // 10] * 10
    assert torch.equal(dataset.labels, torch.arange(count) % 10)
    assert dataset.classes == "airplane automobile bird cat deer dog frog horse ship truck".split()
    assert len(dataset) == count and dataset.image_size == 32

    pixels = dataset.images.float() / 255
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=0.01)
    torch.testing.assert_close(pixels.std(dim=(0, 2, 3)), torch.tensor([0.2470, 0.2435, 0.2616]), rtol=0, atol=0.01)
    assert len(dataset.images.flatten(1).unique(dim=0)) >= count - 5  # no tile stands twice

    image, label = dataset[13]
    assert torch.equal(image, dataset.images[13]) and label == 3
    images, labels = dataset.batch([5, 2])
    assert torch.equal(images, dataset.images[[5, 2]]) and labels.tolist() == [5, 2]
    assert dataset.batch(slice(10, 14))[1].tolist() == [0, 1, 2, 3]


def test_sample_is_cut_out_of_its_mosaic():
    sheet = np.array(Image.open(BUNDLED / "sample" / "test.webp").convert("RGB"))
    columns = sheet.shape[1] // 32
    images = load_dataset("sample", "test").images
    for i in (0, 1, columns - 1, columns, 999):
        row, column = divmod(i, columns)
        tile = sheet[row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32]
        assert np.array_equal(images[i].permute(1, 2, 0).numpy(), tile)


@pytest.mark.parametrize("name", ["sample", "photos"])
def test_bundled_files_are_those_described(name):
    description = json.loads((BUNDLED / name / "dataset.json").read_text())
    assert description["sha256"].keys() == {p.name for p in (BUNDLED / name).iterdir()} - {"dataset.json"}
    for file, expected in description["sha256"].items():
        assert hashlib.sha256((BUNDLED / name / file).read_bytes()).hexdigest() == expected
    for split, count in description["counts"].items():
        assert len(load_dataset(name, split)) == count


def test_bundled_files_are_small():
    sizes = {n: sum(p.stat().st_size for p in (BUNDLED / n).rglob("*") if p.is_file()) for n in ("sample", "photos")}
    assert sizes["photos"] < 0.5e6
    assert sum(sizes.values()) < 10e6


def test_photos():
    dataset = load_dataset("photos")
    assert dataset.images.shape == (10, 3, 224, 224) and dataset.images.dtype == torch.uint8
    assert dataset.labels.tolist() == list(range(10)) and len(set(dataset.classes)) == 10
    for image, name in zip(dataset.images, dataset.classes, strict=True):
        photo = np.array(Image.open(BUNDLED / "photos" / f"{name}.jpg").convert("RGB"))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), photo)
        assert image.float().std() > 10  # a picture, not a blank
    with pytest.raises(SelfieLiteError, match="no test part"):
        load_dataset("photos", "test")


# Names


def test_unknown_split_and_wrong_size():
    with pytest.raises(SelfieLiteError, match="unknown split 'tets'. Did you mean 'test'"):
        load_dataset("sample", "tets")
    with pytest.raises(SelfieLiteError, match="'sample' is stored at 32×32 pixels, but 64 were asked for"):
        load_dataset("sample", image_size=64)
    assert load_dataset("sample", "test", image_size=32).image_size == 32


@pytest.mark.parametrize(
    "name, nearest", [("cifar", "'cifar10'"), ("imagenete", "'imagenette'"), ("phots", "'photos'")]
)
def test_unknown_name_with_the_nearest(cache, name, nearest):
    with pytest.raises(DatasetNotFoundError, match=f"no data set and no folder '{name}'. Did you mean .*{nearest}"):
        load_dataset(name)


@pytest.mark.parametrize("given", [None, 5, "", b"sample", ["sample"], np.zeros(3)], ids=str)
def test_what_is_no_name(given):
    with pytest.raises(SelfieLiteError, match="give the name of a data set or a folder of images, not"):
        load_dataset(given)


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "32", 10**6])
def test_sizes_that_cannot_be(size):
    with pytest.raises(SelfieLiteError, match="image_size is a number of pixels, 1 to 10,000, but is"):
        load_dataset("sample", "test", size)


@pytest.mark.parametrize("given", ["x" * 5000, "a\0b", "~nobody-of-this-name/x"])
def test_paths_that_cannot_be(cache, given):
    with pytest.raises(DatasetNotFoundError, match="no data set and no folder"):
        load_dataset(given)


@pytest.mark.parametrize("name, said", [("pets.zip", "an archive: unpack it first"), ("a.png", "a file")])
def test_a_file_in_place_of_a_folder(cache, tmp_path, name, said):
    (tmp_path / name).write_text("x")
    for attempt in (load_dataset, lambda path: import_folder("pets", path)):
        with pytest.raises(SelfieLiteError, match=f"{name} is {said}; give the folder that holds the images"):
            attempt(tmp_path / name)


@pytest.mark.parametrize("name, source", [("cifar10", "CIFAR10"), ("imagenette", "Imagenette")])
def test_no_network(cache, monkeypatch, name, source):
    def unreachable(*args, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets, source, unreachable)
    monkeypatch.setattr("selfie_lite.data.importing.urlopen", unreachable)
    ways = f"selfie-lite data download {name}.*selfie-lite data import {name} FOLDER"
    with pytest.raises(DatasetNotFoundError, match="(?s)Name or service not known.*" + ways):
        load_dataset(name)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(torchvision.datasets, source, lambda *args, **options: pytest.fail("asked the network"))
    with pytest.raises(DatasetNotFoundError, match="(?s)" + ways):
        load_dataset(name, download=False)


def test_imagenet_through_torchvision(cache):
    with pytest.raises(DatasetNotFoundError, match=r"Link your own copy(.|\n)*ln -s FOLDER .*imagenet"):
        load_dataset("imagenet")
    root = cache / "imagenet"
    names = ["train/n02/a.png", "train/n01/b.png", "train/n01/c.png", "val/n02/d.png", "val/n01/e.png"]
    colours = write_images(root, *names)
    torch.save(({"n01": ("tench", "Tinca"), "n02": ("goldfish", "Carassius")}, ["n02", "n01"]), root / "meta.bin")
    dataset = load_dataset("imagenet", image_size=4)
    assert dataset.classes == ["tench", "goldfish"] and dataset.labels.tolist() == [0, 0, 1]
    assert dataset[2][0][:, 0, 0].tolist() == list(colours["train/n02/a.png"])
    validation = load_dataset("imagenet", "test")
    assert validation.labels.tolist() == [0, 1] and validation.image_size == 224
    assert validation[1][0][:, 9, 9].tolist() == list(colours["val/n02/d.png"])


def test_imagenet_that_is_not_laid_out_as_torchvision_wants(cache):
    (cache / "imagenet").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"is not laid out as expected(.|\n)*Link your own copy"):
        load_dataset("imagenet")
