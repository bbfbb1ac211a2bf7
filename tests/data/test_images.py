"""Every kind of image file, and every kind of folder."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch
from pictures import random_pixels, write_images
from PIL import Image, JpegImagePlugin, PngImagePlugin

from selfie_lite import ImageFiles, SelfieLiteError, UnreadableImageError, load_dataset
from selfie_lite.data.folders import FileNames
from selfie_lite.data.images import find_images, read_image

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


# Folders as they come from elsewhere


def split_of(root, split="train"):
    """Names of the images of a part, from the folder downwards, and its classes."""
    paths, _, classes = find_images(root)[split]
    return [os.path.relpath(path, root) for path in paths], classes


@pytest.mark.parametrize("train, test", [("Train", "TEST"), ("training", "Testing"), ("train", "valid")])
@pytest.mark.parametrize("above", ["", "animals/", "archive/animals/"])
def test_parts_by_other_names_and_further_down(tmp_path, train, test, above):
    names = [f"{above}{part}/{c}/a.png" for part in (train, test) for c in ("cat", "dog")]
    write_images(tmp_path, *names, "__MACOSX/cat/b.png", ".cache/c.png")
    assert split_of(tmp_path) == (names[:2], ["cat", "dog"])
    assert split_of(tmp_path, "test") == (names[2:], ["cat", "dog"])


@pytest.mark.parametrize(
    "names, message",
    [
        (["train/cat/a.png", "Train/cat/b.png"], "has Train/ and train/: which one"),
        (["train/cat/a.png", "val/cat/b.png", "valid/cat/c.png"], "has val/ and valid/: which one"),
        (["valid/a.png", "invalid/b.png"], "If valid/ is the test part.*if it is a class"),
        (["train/a.png", "bus/b.png"], "If train/ is the training part.*if it is a class"),
        (["cat/train/a.png", "cat/test/b.png", "dog/train/a.png"], "holds images in a folder test/"),
        (["train/cat/a.png", "train/dog/val/b.png"], "dog holds images in a folder val/"),
        (["one/train/cat/a.png", "two/train/cat/b.png"], "one holds images in a folder train/"),
        (["animals/cat/a.png", "animals/dog/b.png"], "animals is the only folder of .*If those are the classes, give"),
        (["train/cat/a.png", "test/b.png"], "test holds images without class folders"),
    ],
)
def test_two_readings_are_an_error_that_names_both(tmp_path, names, message):
    write_images(tmp_path, *names)
    with pytest.raises(SelfieLiteError, match=message):
        find_images(tmp_path)


def test_what_is_passed_over_is_counted_and_said(tmp_path, caplog):
    write_images(tmp_path, "train/cat/a.jfif.png", "train/cat/b.avif", "train/cat/c.gif", "val/cat/d.png")
    write_images(tmp_path, "test/cat/e.png", "cover.png")
    for name in ("cat/f.HEIC", "bird/g.heic", "bird/h.heic", "cat/Thumbs.db", "cat/@eaDir/i.png", "cat/README"):
        (tmp_path / "train" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / name).write_text("")
    assert split_of(tmp_path)[1] == ["cat"] and len(split_of(tmp_path)[0]) == 3
    said = "\n".join(caplog.messages)
    assert "val/ (only train/ and test/ are read), 1 images beside train/" in said
    assert "3 .heic, 2 hidden or system, 1 without an ending; bird/ holds no images, but 2 .heic" in said


def test_links(tmp_path, caplog):
    """Each image once; never one for training that is for tests as well."""
    root, outside = tmp_path / "pets", tmp_path / "pool"
    write_images(root, "train/cat/a.png", "train/dog/b.png", "test/dog/c.png", "test/cat/d.png")
    write_images(outside, "e.png", "more/f.png")
    cat = root / "train" / "cat"
    for name, target in {"up": "..", "self": ".", "all": root, "round": "round", "tests": "../../test/dog"}.items():
        (cat / name).symlink_to(target)
    for name, target in {"b.png": "../dog/b.png", "c.png": "../../test/dog/c.png", "e.png": outside / "e.png"}.items():
        (cat / name).symlink_to(target)
    (cat / "gone.png").symlink_to("nowhere.png")  # kept, for it is missed when it is read
    (root / "train" / "dog" / "pool").symlink_to(outside)  # e.png is in it, for the second time
    expected = ["cat/a.png", "cat/e.png", "cat/gone.png", "dog/b.png", "dog/pool/more/f.png"]
    assert split_of(root) == ([f"train/{name}" for name in expected], ["cat", "dog"])
    assert "7 links to what is read in its own place, 1 without an ending" in caplog.text
    (root / "test" / "cat" / "f.png").symlink_to(outside / "more" / "f.png")
    for split in ("train", "test", None):
        with pytest.raises(
            SelfieLiteError, match="1 images are linked from both .*train and .*test, the first .*f.png"
        ):
            find_images(root, split)


def test_links_to_where_nothing_is_read(tmp_path):
    """A pool beside the parts, as DVC and git-annex keep it."""
    write_images(tmp_path, ".pool/1.png", ".pool/2.png")
    for split, name in (("train", "1.png"), ("test", "2.png")):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "a.png").symlink_to(tmp_path / ".pool" / name)
    assert split_of(tmp_path)[0] == ["train/cat/a.png"] and split_of(tmp_path, "test")[0] == ["test/cat/a.png"]
    (tmp_path / "val").symlink_to("train")
    (tmp_path / "test").rename(tmp_path / ".old")
    with pytest.raises(SelfieLiteError, match="train and .*val are the same images"):
        find_images(tmp_path)


def test_class_folders_named_like_images_and_files_that_are_none(tmp_path, caplog):
    write_images(tmp_path, "v1.png/a.png", "v2.png/b.png")
    os.mkfifo(tmp_path / "v1.png" / "pipe.png")
    assert split_of(tmp_path) == (["v1.png/a.png", "v2.png/b.png"], ["v1.png", "v2.png"])
    assert "1 no regular file" in caplog.text
    with pytest.raises(UnreadableImageError, match="pipe.png: cannot be read .it is no regular file"):
        read_image(tmp_path / "v1.png" / "pipe.png")


def test_names_of_any_bytes(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", folder + b"/\xff.png")
    dataset = load_dataset(tmp_path, image_size=4)
    assert dataset.classes == ["caf\\xe9"] and dataset[0][0].shape == (3, 4, 4)
    os.remove(folder + b"/\xff.png")
    with pytest.raises(UnreadableImageError, match=r"caf\\xe9/\\xff.png"):
        dataset[0]


def test_file_names_are_one_array_and_an_error_outlives_a_worker_process(tmp_path):
    paths = FileNames(["a/ü.png", "", "b.png"])
    assert list(paths) == ["a/ü.png", "", "b.png"] and paths[-1] == "b.png" and paths[:2] == ["a/ü.png", ""]
    with pytest.raises(IndexError):
        paths[3]
    assert len(pickle.dumps(FileNames(["x" * 50] * 1000))) < 60_000
    broken = ImageFiles("x", "train", [str(tmp_path / "none.png")], torch.zeros(1), ["a"], 4)
    with pytest.raises(UnreadableImageError) as error:
        next(iter(torch.utils.data.DataLoader(broken, num_workers=1)))
    assert str(error.value) == f"{tmp_path / 'none.png'}: cannot be read (no such file or directory)."


def test_one_part_is_walked_for_one_part(tmp_path, monkeypatch):
    write_images(tmp_path, *[f"{s}/{c}/{i}/a.png" for s in ("train", "test") for c in ("cat", "dog") for i in range(9)])
    scanned, plain = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(os.path.relpath(path, tmp_path)) or plain(path))
    find_images(tmp_path, "test")
    find_images(tmp_path, "train")
    assert max(scanned.count(name) for name in scanned if name.count("/") == 2 and not name.endswith("/0")) == 1


# Image files that are damaged, or deeper than 8 bits


@pytest.mark.parametrize("kind", ["II*\0", "MM\0*", "wrong", ""])
def test_exif_with_tags_of_wrong_types(tmp_path, kind):
    """The orientation is read, whatever the other tags are; a block that is no EXIF is passed over."""
    order = ">" if kind.startswith("M") else "<"
    tags = [(0x112, 3, 1, struct.pack(f"{order}HH", 6, 0)), (0x11A, 2, 3, b"72\0\0"), (0x128, 2, 2, b"2\0\0\0")]
    block = kind.encode() + struct.pack(f"{order}IH", 8, len(tags))
    block += b"".join(struct.pack(f"{order}HHI", *tag[:3]) + tag[3] for tag in tags) + bytes(4)
    pixels = np.zeros((8, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    assert read_image(tmp_path / "a.jpg").shape == ((16, 8, 3) if kind in ("II*\0", "MM\0*") else (8, 16, 3))


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.float32([0, 0.5, 1]), [0, 128, 255]),
        (np.float32([0, 0.65, 1.3]), [0, 128, 255]),  # a little over 1 is not nearly black
        (np.float32([0, 100, 255]), [0, 100, 255]),
        (np.float32([-1, 0, 1]), [0, 128, 255]),
        (np.float32([-9, -9, -9]), [0, 0, 0]),
        (np.float32([0, 5e5, 1e6]), [0, 128, 255]),
        (np.int32([0, 100, 255]), [0, 100, 255]),
        (np.int32([0, 0, 1]), [0, 0, 255]),
        (np.int32([0, 0, 0]), [0, 0, 0]),
        (np.int32([0, 2048, 4095]), [0, 128, 255]),
        (np.int32([0, 32768, 65535]), [0, 128, 255]),
        (np.uint16([0, 2048, 4095]), [0, 128, 255]),  # a camera of 12 bits in 16
    ],
)
def test_deep_images_are_scaled_by_their_range(tmp_path, values, expected):
    Image.fromarray(values[None]).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == expected


def test_values_that_are_no_numbers_are_refused(tmp_path):
    Image.fromarray(np.float32([[0, np.nan]])).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match="a.tif: cannot be read .*no finite numbers"):
        read_image(tmp_path / "a.tif")


def test_a_png_with_a_large_profile_or_comment(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * (2 << 20), zip=True)
    Image.new("RGB", (4, 4), (9, 99, 9)).save(tmp_path / "a.png", pnginfo=info, icc_profile=bytes(2 << 20))
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [9, 99, 9]
    assert (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY) == limits


@pytest.mark.parametrize("error", [struct.error("x"), TypeError(), RecursionError("deep"), ZeroDivisionError("by 0")])
def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch, error):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(UnreadableImageError, match=f"a.png: cannot be read .{str(error) or 'TypeError'}"):
        read_image(tmp_path / "a.png")


# Crops of whole images


def ramp(width, height):
    """Every pixel says where it is: red the column, green the row, of 255."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return pixels


def test_a_crop_is_a_rectangle_of_the_whole_image(tmp_path):
    """Area, shape and place are read off a ramp, for many draws; the middle of another is 7/8 of the shorter side."""
    Image.fromarray(ramp(500, 375)).save(tmp_path / "a.png")
    drawn = torch.rand((200, 5), generator=torch.Generator().manual_seed(0)).tolist()
    found = []
    for numbers in drawn:
        crop = read_image(tmp_path / "a.png", 80, drawn=numbers).astype(float)
        assert crop.shape == (80, 80, 3)
        left, right = crop[:, 5, 0].mean() / 255 * 500, crop[:, -6, 0].mean() / 255 * 500
        top, bottom = crop[5, :, 1].mean() / 255 * 375, crop[-6, :, 1].mean() / 255 * 375
        assert (right < left) == (numbers[4] < 0.5) and bottom > top
        found.append([abs(right - left) * 80 / 69, (bottom - top) * 80 / 69, (left + right) / 2, (top + bottom) / 2])
    width, height, x, y = np.array(found).T
    area, shape = width * height / (500 * 375), width / height
    assert 0.07 < area.min() < 0.12 and 0.9 < area.max() < 1.02 and 0.72 < shape.min() and shape.max() < 1.36
    inside = (x - width / 2 > -4) & (x + width / 2 < 504) & (y - height / 2 > -4) & (y + height / 2 < 379)
    assert inside.all() and x.min() < 120 and x.max() > 380 and y.min() < 90 and y.max() > 270
    middle = read_image(tmp_path / "a.png", 224).astype(float)
    assert abs(middle[:, 0, 0].mean() / 255 * 500 - (250 - 164)) < 3 and abs(middle[-1, :, 1].mean() - 239) < 3


@pytest.mark.parametrize("orientation", [6, 5])
def test_a_crop_of_a_turned_image_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp(500, 375)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    whole, crop = (read_image(tmp_path / "a.jpg", 96, drawn=d).astype(float) for d in (None, [0.5, 0.5, 0.1, 0.9, 0.9]))
    for axis in (0, 1):  # both grow to the same side
        assert (np.sign(np.diff(crop[..., :2].mean(axis=axis), axis=0).sum(axis=0).round(-1)) ==
                np.sign(np.diff(whole[..., :2].mean(axis=axis), axis=0).sum(axis=0).round(-1))).all()  # fmt: skip


@pytest.mark.parametrize("drawn", [None, [0.9, 0.5, 0.3, 0.6, 0.9], [0.0, 0.5, 0.3, 0.6, 0.2]])
def test_jpeg_is_decoded_no_larger_than_needed_and_looks_the_same(tmp_path, monkeypatch, drawn):
    Image.fromarray(ramp(1600, 1200)).save(tmp_path / "a.png")
    Image.fromarray(ramp(1600, 1200)).save(tmp_path / "a.jpg", quality=95)
    decoded, plain = [], JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda image: decoded.append(image.size) or plain(image))
    difference = read_image(tmp_path / "a.jpg", 70, drawn=drawn).astype(int) - read_image(
        tmp_path / "a.png", 70, drawn=drawn
    )
    assert np.abs(difference).mean() < 2
    assert decoded[0][0] == {None: 200, 0.9: 200, 0.0: 400}[drawn and drawn[0]]
