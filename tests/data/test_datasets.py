"""Images and labels from the bundled samples, from folders and from every kind of image file."""

import hashlib
import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from selfie_lite import (
    DatasetNotFoundError,
    ImageDataset,
    ImageFiles,
    SelfieLiteError,
    UnreadableImageError,
    load_dataset,
)
from selfie_lite.data.datasets import BUNDLED, data_cache, is_plain_name, read_image


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty data cache."""
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def random_pixels(height=6, width=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(root, *names):
    """One small image a name, each of another colour; gives the colours."""
    colours = {}
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours[name] = (10 * i, 255 - 10 * i, 7 * i)
        Image.new("RGB", (6, 6), colours[name]).save(path)
    return colours


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


# Image files


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_rgb_as_it_is(tmp_path, suffix):
    pixels, path = random_pixels(), tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    result = read_image(path)
    assert result.dtype == np.uint8
    assert np.array_equal(result, pixels)
    assert np.array_equal(read_image(str(path)), pixels)


def grey(value):
    return (value, value, value)


def palette(pixels, colours, **info):
    image = Image.new("P", (len(pixels), 1))
    image.putpalette([part for colour in colours for part in colour])
    image.putdata(pixels)
    image.info |= info
    return image


def row(mode, *pixels):
    image = Image.new(mode, (len(pixels), 1))
    for x, pixel in enumerate(pixels):
        image.putpixel((x, 0), pixel)
    return image


COLOURS = [(255, 0, 0), (0, 128, 64), (3, 4, 5)]
CLEAR = (255, 255, 255)  # what is transparent lies on white
DEEP = Image.fromarray(np.array([[0, 257, 32768, 65279, 65535]], dtype=np.uint16))
DEEP_EXPECTED = [grey(0), grey(1), grey(128), grey(254), grey(255)]


@pytest.mark.parametrize(
    "image, suffix, expected",
    [
        pytest.param(row("L", 0, 7, 255), "png", [grey(0), grey(7), grey(255)], id="grey"),
        pytest.param(row("1", 0, 1, 1), "png", [grey(0), grey(255), grey(255)], id="1-bit"),
        pytest.param(row("1", 1, 0), "tif", [grey(255), grey(0)], id="1-bit tif"),
        pytest.param(palette([2, 0, 1], COLOURS), "png", [COLOURS[2], COLOURS[0], COLOURS[1]], id="palette"),
        pytest.param(palette([2, 0, 1], COLOURS), "gif", [COLOURS[2], COLOURS[0], COLOURS[1]], id="palette gif"),
        pytest.param(
            palette([2, 0, 1], COLOURS, transparency=0), "png", [COLOURS[2], CLEAR, COLOURS[1]], id="palette clear"
        ),
        pytest.param(
            palette([0, 1, 2], COLOURS, transparency=bytes([0, 255, 128])),
            "png",
            [CLEAR, COLOURS[1], (128, 129, 129)],
            id="palette half clear",
        ),
        pytest.param(
            row("LA", (50, 255), (50, 0), (0, 128)), "png", [grey(50), CLEAR, grey(127)], id="grey with transparency"
        ),
        pytest.param(
            row("RGBA", (9, 8, 7, 255), (9, 8, 7, 0), (255, 0, 0, 51)),
            "png",
            [(9, 8, 7), CLEAR, (255, 204, 204)],
            id="RGBA",
        ),
        pytest.param(
            row("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)),
            "tif",
            [CLEAR, (0, 255, 255), (255, 0, 0), grey(0)],
            id="CMYK",
        ),
        pytest.param(DEEP, "png", DEEP_EXPECTED, id="16-bit png"),
        pytest.param(DEEP, "tif", DEEP_EXPECTED, id="16-bit tif"),
    ],
)
def test_other_kinds_become_rgb(tmp_path, image, suffix, expected):
    path = tmp_path / f"image.{suffix}"
    image.save(path)
    result = read_image(path)
    assert result.dtype == np.uint8 and result.shape == (1, len(expected), 3)
    assert np.abs(result[0].astype(int) - np.array(expected)).max() <= 1, result[0].tolist()


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "red.jpg").astype(int) - [255, 0, 0]).max() < 8


UPRIGHT = {  # what a camera stored, by EXIF orientation → what should be seen
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_exif_rotation(tmp_path, orientation, mode):
    pixels = random_pixels()
    image = Image.fromarray(pixels)
    if mode == "L":
        image, pixels = Image.fromarray(pixels[..., 0].copy()), pixels[..., :1].repeat(3, axis=2)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        pixels = pixels[..., :1].repeat(3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "rotated.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "rotated.png"), UPRIGHT[orientation](pixels))


def test_image_size_resizes_the_shorter_side_and_cuts_out_the_centre(tmp_path):
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, :20], pixels[:, 20:40], pixels[:, 40:60], pixels[:, 60:] = 200, 50, 100, 250
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    result = read_image(tmp_path / "wide.png", 20)
    assert result.shape == (20, 20, 3)
    assert (result[:, 2:8] == 50).all() and (result[:, 12:18] == 100).all()  # the outer quarters are cut off
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "high.png")
    assert np.array_equal(read_image(tmp_path / "high.png", 20), result.transpose(1, 0, 2))
    assert np.array_equal(read_image(tmp_path / "wide.png", 40), pixels[:, 20:60])  # nothing to resize
    assert read_image(tmp_path / "wide.png", 100).shape == (100, 100, 3)


@pytest.mark.parametrize("limit", [90, 40], ids=["Pillow warns", "Pillow refuses"])
def test_decompression_bomb(tmp_path, monkeypatch, limit):
    Image.fromarray(random_pixels(10, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnreadableImageError, match=rf"bomb.png: refused, it unpacks to more than {limit} pixels"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "bomb.png").shape == (10, 10, 3)


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing", "folder"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_unreadable_files(tmp_path, kind, suffix):
    path = tmp_path / f"broken.{suffix}"
    if kind == "truncated":
        Image.fromarray(random_pixels(50, 50)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "<html>Not found</html>")
    with pytest.raises(UnreadableImageError, match=rf"broken\.{suffix}: cannot be read \(.+\)"):
        read_image(path)


# Folders of images


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_train_and_test_folders(cache, tmp_path, test_name):
    root = tmp_path / "pets"
    train = [f"train/{c}/{i}.png" for c in ("cat", "dog", "owl") for i in range(2)]
    test = [f"{test_name}/dog/a.png", f"{test_name}/owl/b.png"]  # no cat
    colours = write_images(root, *train, *test)
    dataset = load_dataset(root, image_size=4)
    assert isinstance(dataset, ImageFiles)
    assert dataset.classes == ["cat", "dog", "owl"] and dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (len(dataset), dataset.image_size, dataset.split) == (6, 4, "train")
    for i, name in enumerate(train):
        image, label = dataset[i]
        assert image.shape == (3, 4, 4) and image.dtype == torch.uint8 and label == i // 2
        assert image[:, 2, 2].tolist() == list(colours[name])

    tests = load_dataset(str(root), "test", image_size=4)
    assert tests.classes == ["cat", "dog", "owl"] and tests.labels.tolist() == [1, 2]  # labels agree over splits
    assert [tests[i][0][:, 0, 0].tolist() for i in range(2)] == [list(colours[name]) for name in test]
    images, labels = dataset.batch([4, 1])
    assert torch.equal(images, torch.stack([dataset[4][0], dataset[1][0]])) and labels.tolist() == [2, 0]
    assert dataset.batch(slice(1, 3))[1].tolist() == [0, 1]
    assert load_dataset(root).image_size == 224


def test_test_folder_comes_before_val(cache, tmp_path):
    write_images(tmp_path / "pets", "train/cat/a.png", "val/cat/b.png", "val/cat/c.png", "test/cat/d.png")
    dataset = load_dataset(tmp_path / "pets", "test")
    assert [p.endswith("d.png") for p in dataset.paths] == [True]


def test_class_folders_alone(cache, tmp_path):
    write_images(tmp_path / "pets", "dog/a.png", "cat/b.JPG", "cat/sub/c.webp", "cat/notes.png")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / "empty").mkdir()
    dataset = load_dataset(tmp_path / "pets")
    assert dataset.classes == ["cat", "dog"] and dataset.labels.tolist() == [0, 0, 0, 1]
    with pytest.raises(SelfieLiteError, match="has no test part: put images into"):
        load_dataset(tmp_path / "pets", "test")


def test_loose_images(cache, tmp_path):
    colours = write_images(tmp_path / "pets", "b.png", "a.png")
    dataset = load_dataset(tmp_path / "pets", image_size=4)
    assert dataset.classes == ["unlabelled"] and dataset.labels.tolist() == [0, 0]
    assert dataset[0][0][:, 0, 0].tolist() == list(colours["a.png"])


def test_hidden_files_are_no_images(cache, tmp_path):
    """._a.png is what macOS leaves beside a.png; .ipynb_checkpoints holds what Jupyter saved before."""
    names = ["cat/a.png", "cat/._b.png", "cat/.ipynb_checkpoints/c.png", "dog/d.png", ".trash/e.png"]
    write_images(tmp_path / "classes", *names)
    write_images(tmp_path / "loose", "a.png", "._b.png", ".trash/c.png")
    assert len(load_dataset(tmp_path / "loose")) == 1
    dataset = load_dataset(tmp_path / "classes")
    assert dataset.classes == ["cat", "dog"] and len(dataset) == 2


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "no images in .*Looked for .jpg"),
        (["train/readme/a.txt"], "no images in .*train"),
        (["a.png", "cat/b.png"], "holds 1 images beside its class folders, the first .*a.png"),
        (["train/cat/a.png", "test/cat/b.png", "test/owl/c.png"], "test has classes that .*train lacks: owl"),
    ],
)
def test_folders_that_are_unclear(cache, tmp_path, names, message):
    root = tmp_path / "pets"
    root.mkdir()
    write_images(root, *[name for name in names if name.endswith("png")])
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(SelfieLiteError, match=message):
        load_dataset(root)


# Names


def test_the_environment_says_where_data_is_kept(monkeypatch, cache):
    assert data_cache() == cache
    monkeypatch.delenv("SELFIE_LITE_DATA")
    assert data_cache() == BUNDLED


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


@pytest.mark.parametrize("name, source", [("cifar10", "CIFAR10"), ("imagenette", "Imagenette")])
def test_no_network(cache, monkeypatch, name, source):
    def unreachable(*args, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets, source, unreachable)
    ways = f"selfie-lite data download {name}.*selfie-lite data import {name} FOLDER"
    with pytest.raises(DatasetNotFoundError, match="(?s)Name or service not known.*" + ways):
        load_dataset(name)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(torchvision.datasets, source, lambda *args, **options: pytest.fail("asked the network"))
    with pytest.raises(DatasetNotFoundError, match="(?s)" + ways):
        load_dataset(name, download=False)


@pytest.mark.parametrize("name", ["..", "../cifar10", "a/b", ".hidden", "", "-x", "a b", "ü/"])
def test_names_that_are_paths(name):
    assert not is_plain_name(name)


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
