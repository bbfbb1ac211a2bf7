"""Every kind of image file, and every kind of folder."""

import numpy as np
import pytest
import torch
from pictures import random_pixels, write_images
from PIL import Image

from selfie_lite import ImageFiles, SelfieLiteError, UnreadableImageError, load_dataset
from selfie_lite.data.images import read_image

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
