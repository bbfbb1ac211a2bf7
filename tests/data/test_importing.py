"""Imports: the pixels that went in come out, and a failure at any point leaves nothing behind."""

import errno
import hashlib
import json
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

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
from selfie_lite.data import importing as data_import
from selfie_lite.data.catalog import installed_datasets
from selfie_lite.data.importing import dataset_writer, download_dataset, import_folder, verify_dataset
from selfie_lite.files import sha256
from selfie_lite.training.batches import fingerprint

pytestmark = pytest.mark.usefixtures("cache")


def pixels_of(folder, split):
    """All images below folder/split in order of their paths, (n, 3, 32, 32)."""
    images = [np.array(Image.open(path)) for path in sorted((folder / split).glob("*/*.png"))]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("workers", [0, 2])
def test_imported_pixels_are_those_of_the_files(cache, pets, workers):
    state = torch.get_rng_state()
    counts, skipped = import_folder("pets", pets, image_size=32, workers=workers)
    assert torch.equal(torch.get_rng_state(), state)  # the global random state is untouched
    assert (counts, skipped) == ({"train": 10, "test": 3}, [])
    for split, folder, labels in [("train", "train", [0] * 5 + [1] * 5), ("test", "val", [0, 0, 1])]:
        dataset = load_dataset("pets", split)
        assert isinstance(dataset, ImageDataset) and dataset.classes == ["cat", "dog"]
        assert torch.equal(dataset.images, pixels_of(pets, folder))
        assert dataset.labels.tolist() == labels and dataset.labels.dtype == torch.int64
    assert [p.name for p in cache.iterdir()] == ["pets"]
    assert (cache / "pets").stat().st_mode & 0o777 == 0o755
    with pytest.raises(SelfieLiteError, match="stored at 32×32 pixels, but 64 were asked for"):
        load_dataset("pets", image_size=64)


def test_more_images_than_one_batch_keep_their_order(tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(150):
        Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / "many" / f"{i:03}.png")
    assert import_folder("many", tmp_path / "many", 2, workers=0)[0] == {"train": 150}
    assert load_dataset("many").images[:, 0, 0, 0].tolist() == list(range(150))
    with pytest.raises(SelfieLiteError, match="'many' was imported without a test part; it has train"):
        load_dataset("many", "test")


def test_images_are_resized_to_224_by_default_and_to_32_for_cifar10(pets):
    import_folder("pets", pets, workers=0)
    assert load_dataset("pets").batch([0, 9])[0].shape == (2, 3, 224, 224)
    import_folder("cifar10", pets, workers=0)
    assert load_dataset("cifar10").images.shape == (10, 3, 32, 32)


def test_changing_a_loaded_image_does_not_change_the_file(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    before = content(cache)
    load_dataset("pets").images.zero_()
    assert content(cache) == before and verify_dataset("pets") == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_and_nothing_is_kept(cache, pets, workers):
    (pets / "train" / "dog" / "2.png").write_text("no image")
    with pytest.raises(UnreadableImageError, match="train/dog/2.png: cannot be read.*Nothing was imported"):
        import_folder("pets", pets, 32, workers=workers)
    assert list(cache.iterdir()) == []


def test_unreadable_images_left_out_are_reported(pets):
    (pets / "train" / "dog" / "2.png").write_text("no image")
    (pets / "val" / "cat" / "0.png").write_bytes(b"")
    expected = pixels_of_others(pets, "train", "dog/2.png"), pixels_of_others(pets, "val", "cat/0.png")
    counts, skipped = import_folder("pets", pets, 32, workers=0, skip_unreadable=True)
    assert counts == {"train": 9, "test": 2}
    assert [text.split(": ")[0] for text in skipped] == [str(pets / "train/dog/2.png"), str(pets / "val/cat/0.png")]
    train, test = load_dataset("pets"), load_dataset("pets", "test")
    assert torch.equal(train.images, expected[0]) and train.labels.tolist() == [0] * 5 + [1] * 4
    assert torch.equal(test.images, expected[1]) and test.labels.tolist() == [0, 1]


def pixels_of_others(folder, split, left_out):
    (folder / split / left_out).rename(folder / "aside")
    images = pixels_of(folder, split)
    (folder / "aside").rename(folder / split / left_out)
    return images


def test_nothing_but_unreadable_images(cache, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no image")
    with pytest.raises(UnreadableImageError, match="none of the 1 images could be read; the first: .*a.png"):
        import_folder("broken", tmp_path / "broken", 32, workers=0, skip_unreadable=True)
    assert list(cache.iterdir()) == []


def test_a_name_in_use_is_refused_without_replace(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    before = content(cache)
    shutil.rmtree(pets / "train" / "dog")
    shutil.rmtree(pets / "val")
    with pytest.raises(SelfieLiteError, match="pets is already there. .*add --replace"):
        import_folder("pets", pets, 32, workers=0)
    assert content(cache) == before
    assert import_folder("pets", pets, 16, workers=0, replace=True)[0] == {"train": 5}
    dataset = load_dataset("pets")
    assert dataset.images.shape == (5, 3, 16, 16) and dataset.classes == ["cat"]
    assert sorted(p.name for p in cache.rglob("*")) == ["dataset.json", "pets", "train_images.bin", "train_labels.npy"]


def test_a_link_is_replaced_and_what_it_points_to_stays(cache, pets, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("keep")
    (cache / "pets").symlink_to(tmp_path / "elsewhere")
    import_folder("pets", pets, 32, workers=0, replace=True)
    assert not (cache / "pets").is_symlink() and len(load_dataset("pets")) == 10
    assert (tmp_path / "elsewhere" / "mine").read_text() == "keep"
    assert [p.name for p in cache.iterdir()] == ["pets"]


def test_an_earlier_data_set_stays_when_its_replacement_fails(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    before = content(cache)
    (pets / "train" / "dog" / "2.png").write_text("no image")
    with pytest.raises(UnreadableImageError):
        import_folder("pets", pets, 32, workers=0, replace=True)
    assert content(cache) == before


def test_verify_names_the_damaged_file(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    assert verify_dataset("pets") == []
    description = json.loads((cache / "pets" / "dataset.json").read_text())
    files = [f"{split}_{kind}" for split in ("train", "test") for kind in ("images.bin", "labels.npy")]
    assert sorted(description["sha256"]) == sorted(files)
    for file in files:
        path = cache / "pets" / file
        good = path.read_bytes()
        assert description["sha256"][file] == hashlib.sha256(good).hexdigest() == sha256(path)
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert verify_dataset("pets") == [file]
        path.unlink()
        assert verify_dataset("pets") == [file]
        path.write_bytes(good)
    assert verify_dataset("pets") == []


def test_verify_of_bundled_and_unknown_data_sets():
    assert verify_dataset("sample") == verify_dataset("photos") == []
    with pytest.raises(DatasetNotFoundError, match="no data set 'smaple'. Did you mean 'sample'"):
        verify_dataset("smaple")
    with pytest.raises(DatasetNotFoundError, match="selfie-lite data download cifar10"):
        verify_dataset("cifar10")


@pytest.mark.parametrize("file", ["train_images.bin", "train_labels.npy"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_data_set_is_not_loaded(cache, pets, file, damage):
    import_folder("pets", pets, 32, workers=0)
    path = cache / "pets" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(
        SelfieLiteError, match="pets is damaged .*Import it again: selfie-lite data import pets FOLDER --replace"
    ):
        load_dataset("pets")


def test_a_damaged_description(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    (cache / "pets" / "dataset.json").write_text("{")
    with pytest.raises(SelfieLiteError, match="dataset.json is damaged"):
        load_dataset("pets")
    assert verify_dataset("pets") == ["dataset.json"] and verify_dataset("sample") == []


def test_installed_datasets(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    (cache / ".importing-other-1-x").mkdir()
    (cache / ".importing-other-1-x" / "dataset.json").write_text("{}")
    installed = installed_datasets()
    assert {"sample", "photos", "pets"} == set(installed)
    assert installed["pets"]["counts"] == {"train": 10, "test": 3} and installed["pets"]["folder"] == cache / "pets"


@pytest.mark.parametrize("step", ["fsync", "write", "save", "mkdir"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_full_disk_leaves_nothing(cache, pets, monkeypatch, step, replace):
    import_folder("earlier", pets, 32, workers=0)
    if replace:
        import_folder("pets", pets, 32, workers=0)
    before = content(cache)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "write":
        monkeypatch.setattr("selfie_lite.data.writing.open", lambda *a: WriteFails(open(*a)), raising=False)
    else:
        where = {"fsync": "os.fsync", "save": "numpy.save", "mkdir": "pathlib.Path.mkdir"}[step]
        monkeypatch.setattr(where, full)
    with pytest.raises(SelfieLiteError, match="the disk of .* is full, or a quota is. Nothing of 'pets' was kept"):
        import_folder("pets", pets, 32, workers=0, replace=replace)
    assert content(cache) == before
    assert sorted(p.name for p in cache.iterdir()) == (["earlier", "pets"] if replace else ["earlier"])


class WriteFails:
    """A file on a full disk."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_too_little_room_is_said_before_anything_is_read(cache, pets, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=13 * 3 * 32**2 - 1))
    monkeypatch.setattr("selfie_lite.data.importing.read_image", lambda *a: pytest.fail("read"))
    with pytest.raises(SelfieLiteError, match="'pets' takes 0.0 GB, but .*SELFIE_LITE_DATA"):
        import_folder("pets", pets, 32, workers=0)
    assert list(cache.iterdir()) == []


def test_other_errors_pass_through_and_leave_nothing(cache):
    for error in (OSError(errno.EINVAL, "no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            with dataset_writer("pets", 2, ["cat"], 12) as write:
                write("train", [(np.zeros((1, 3, 2, 2), np.uint8), np.array([0]))])
                raise error
        assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(cache, pets, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(cache))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(SelfieLiteError, match=f"{cache} cannot be written .*Point SELFIE_LITE_DATA"):
        import_folder("pets", pets, 32, workers=0)


def test_a_replacement_cut_off_between_its_two_renames_is_undone(cache, pets):
    import_folder("pets", pets, 32, workers=0)
    before = content(cache)
    os.rename(cache / "pets", cache / f".replaced-{platform.node()}-4194305-01~pets")
    with pytest.raises(SelfieLiteError, match="is already there|no images"):
        import_folder("pets", cache, 32, workers=0)
    import_folder("other", pets, 32, workers=0)
    with pytest.raises(RuntimeError):
        with dataset_writer("pets", 32, ["cat"], 0, replace=True):
            raise RuntimeError
    shutil.rmtree(cache / "other")
    assert content(cache) == before


def test_a_killed_import_leaves_no_data_set_and_is_cleaned_up(cache, pets):
    script = f"""
        import time
        import selfie_lite.data.importing as data_import
        read, seen = data_import.read_image, []
        def read_then_hang(*arguments):
            seen.append(1)
            if len(seen) > 8:
                print("hanging", flush=True)
                time.sleep(600)
            return read(*arguments)
        data_import.read_image, data_import.BATCH = read_then_hang, 2
        data_import.import_folder("pets", {str(pets)!r}, 32, workers=0)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    try:
        while "hanging" not in (line := process.stdout.readline()):
            assert line, "the import ended by itself"
        leftovers = [p.name for p in cache.iterdir() if not p.name.endswith(".lock")]
        assert len(leftovers) == 1 and leftovers[0].startswith(f".writing-{platform.node()}-{process.pid}-")
        import_folder("other", pets, 32, workers=0)  # while the first is at work, another may come and go
        assert (cache / leftovers[0]).is_dir()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with pytest.raises(DatasetNotFoundError, match="no data set and no folder 'pets'"):
        load_dataset("pets")
    assert set(installed_datasets()) == {"sample", "photos", "other"}
    assert import_folder("pets", pets, 32, workers=0)[0] == {"train": 10, "test": 3}
    assert torch.equal(load_dataset("pets").images, pixels_of(pets, "train"))
    assert sorted(p.name for p in cache.iterdir()) == ["other", "pets"]


def test_two_imports_at_once(cache):
    """Of one name, the second is refused; of another, both are made."""
    batch = [(np.zeros((1, 3, 2, 2), np.uint8), np.array([0]))]
    with dataset_writer("pets", 2, ["cat"], 12) as write:
        before = sorted(cache.iterdir())
        with pytest.raises(SelfieLiteError, match="another process is just making the data set 'pets'"):
            with dataset_writer("pets", 2, ["cat"], 12, replace=True):
                pytest.fail("inside")
        assert sorted(cache.iterdir()) == before
        with dataset_writer("pets-small", 2, ["cat"], 12) as other:
            other("train", batch)
        assert set(before) < set(cache.iterdir())
        write("train", batch)
    assert sorted(p.name for p in cache.iterdir()) == ["pets", "pets-small"]
    assert len(load_dataset("pets")) == len(load_dataset("pets-small")) == 1


@pytest.mark.parametrize("inside", ["model.safetensors", "cat/a.png"])
def test_what_is_no_import_is_never_replaced(cache, pets, inside):
    """Nor the images that are read, which lie in it."""
    (cache / "pets" / inside).parent.mkdir(parents=True)
    (cache / "pets" / inside).write_bytes((pets / "train" / "cat" / "0.png").read_bytes())
    before = content(cache)
    for source in (pets, cache / "pets", cache / "pets" / "cat"):
        if source.is_dir():
            with pytest.raises(SelfieLiteError, match=f"pets is no import .it holds {inside.split('/')[0]}.|no images"):
                import_folder("pets", source, 32, workers=0, replace=True)
    assert content(cache) == before
    (cache / "file").write_text("mine")
    with pytest.raises(SelfieLiteError, match="file is no import"):
        import_folder("file", pets, 32, workers=0, replace=True)


def test_the_bundled_models_are_never_replaced(pets, monkeypatch):
    monkeypatch.delenv("SELFIE_LITE_DATA")
    with pytest.raises(SelfieLiteError, match="pretrained is no import"):
        import_folder("pretrained", pets, 32, workers=0, replace=True)


def test_a_worker_that_is_killed(cache, pets, monkeypatch):
    def die(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("selfie_lite.data.importing.read_image", die)
    with pytest.raises(SelfieLiteError, match="one of its processes was killed. .*--workers 1; 0"):
        import_folder("pets", pets, 32, workers=1)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("workers", [-1, 1000, True, 1.5])
def test_bad_numbers_of_workers(cache, pets, workers):
    with pytest.raises(SelfieLiteError, match=f"--workers is a number of processes, 0 to 256, but is {workers}"):
        import_folder("pets", pets, 32, workers)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [0.0, 1.0], [True, False], [[0], [1]], [0], ["a", "b"]], ids=str)
def test_labels_that_are_none(cache, labels):
    with dataset_writer("pets", 2, ["cat", "dog"], 0) as write:
        write("train", [(np.zeros((2, 3, 2, 2), np.uint8), np.array([0, 1]))])
    np.save(cache / "pets" / "train_labels.npy", np.array(labels))
    with pytest.raises(SelfieLiteError, match="pets is damaged"):
        load_dataset("pets")
    assert verify_dataset("pets") == ["train_labels.npy"]


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": "2"}, {"image_size": 0}, {"classes": []}, {"classes": [1]}, {"classes": None},
        {"counts": {"a": 1}}, {"counts": {"train": "2"}}, {"counts": {"train": -2}},
        {"sha256": {"../x": "y"}}, {"sha256": []},
        {"classes": ["dog", "cat"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_description_of_another_form_or_that_was_changed(cache, change):
    with dataset_writer("pets", 2, ["cat", "dog"], 0) as write:
        write("train", [(np.zeros((2, 3, 2, 2), np.uint8), np.array([0, 1]))])
    path = cache / "pets" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SelfieLiteError, match="dataset.json is damaged: .*Import the data set again"):
        load_dataset("pets")
    assert verify_dataset("pets") == ["dataset.json"]
    with dataset_writer("pets", 2, ["cat", "dog"], 0, replace=True) as write:
        write("train", [(np.zeros((2, 3, 2, 2), np.uint8), np.array([0, 1]))])
    assert verify_dataset("pets") == [] and len(load_dataset("pets")) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "a b", "-a", "a.b", "ünï"])
def test_bad_names(cache, pets, name):
    with pytest.raises(SelfieLiteError, match="cannot name a data set: use letters, digits, - and _"):
        import_folder(name, pets, 32, workers=0)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["sample", "photos"])
@pytest.mark.parametrize("replace", [False, True])
def test_bundled_names_are_taken(cache, pets, name, replace):
    with pytest.raises(SelfieLiteError, match=f"'{name}' is bundled with the workbook: choose another name"):
        import_folder(name, pets, 32, workers=0, replace=replace)
    assert list(cache.iterdir()) == []


def test_bad_folders(cache, pets, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SelfieLiteError, match="there is no folder .*nowhere"):
        import_folder("pets", tmp_path / "nowhere")
    with pytest.raises(SelfieLiteError, match="no images in .*empty"):
        import_folder("pets", tmp_path / "empty")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("size", [-3, 0, 10**9, True, 2.5, "32"])
def test_bad_sizes(cache, pets, size):
    with pytest.raises(SelfieLiteError, match=f"--size is a number of pixels, 1 to 10,000, but is {size!r}"):
        import_folder("pets", pets, image_size=size, workers=0)
    assert list(cache.iterdir()) == []


# Downloads, without a network


class FakeCIFAR10:
    """What torchvision's class offers once it has downloaded."""

    classes = ["airplane", "automobile"]

    def __init__(self, root, train=True):
        assert os.path.isdir(root)
        count, seed = (6, 0) if train else (4, 1)
        self.data = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 2 for i in range(count)]


def test_download_of_cifar10(cache, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCIFAR10)
    monkeypatch.setattr(data_import, "fetch_cifar10", lambda folder: None)
    assert download_dataset("cifar10") == {"train": 6, "test": 4}
    assert [p.name for p in cache.iterdir()] == ["cifar10"]
    assert verify_dataset("cifar10") == []
    for split in ("train", "test"):
        dataset, raw = load_dataset("cifar10", split), FakeCIFAR10(cache, split == "train")
        assert torch.equal(dataset.images.permute(0, 2, 3, 1), torch.from_numpy(raw.data))
        assert dataset.labels.tolist() == raw.targets and dataset.classes == raw.classes
    with pytest.raises(SelfieLiteError, match="cifar10 is already there"):
        download_dataset("cifar10")
    assert download_dataset("cifar10", replace=True) == {"train": 6, "test": 4}


def test_loading_downloads_once(cache, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCIFAR10)
    monkeypatch.setattr(data_import, "fetch_cifar10", lambda folder: None)
    assert len(load_dataset("cifar10", "test")) == 4
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *a, **k: pytest.fail("asked again"))
    assert len(load_dataset("cifar10", "train")) == 6


def test_download_of_imagenette(cache, pets, monkeypatch):
    def fake(root, split="train", size="full", download=False):
        assert download and size == "320px"
        shutil.copytree(pets / split, os.path.join(root, "imagenette2-320", split))

    monkeypatch.setattr(torchvision.datasets, "Imagenette", fake)
    assert download_dataset("imagenette") == {"train": 10, "test": 3}
    assert [p.name for p in cache.iterdir()] == ["imagenette"]
    assert load_dataset("imagenette", "test").batch(slice(0, 3))[0].shape == (3, 3, 224, 224)


@pytest.mark.parametrize(
    "name, message",
    [
        ("imagenet", "'imagenet' cannot be downloaded. ImageNet is not on this machine. Link your own copy"),
        ("cifar100", "'cifar100' cannot be downloaded. Did you mean 'cifar10'"),
        ("mnist", "'mnist' cannot be downloaded."),
    ],
)
def test_what_cannot_be_downloaded(cache, name, message):
    with pytest.raises(DatasetNotFoundError, match=message):
        download_dataset(name)
    assert list(cache.iterdir()) == []


@pytest.fixture
def server(tmp_path):
    """A web server on this machine for what lies in the folder `web`."""
    (tmp_path / "web").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "web")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_mirrors_of_cifar10_are_tried_in_turn(server, tmp_path, monkeypatch, capsys):
    web = tmp_path / "web"
    for name in ("bad", "good"):
        (web / name).mkdir()
    (web / "bad" / data_import.CIFAR10).write_text("<html>moved</html>")
    (tmp_path / "batch").write_text("cat")
    with tarfile.open(web / "good" / data_import.CIFAR10, "w:gz") as archive:
        archive.add(tmp_path / "batch", "cifar-10-batches-py/batch")
    content = (web / "good" / data_import.CIFAR10).read_bytes()
    monkeypatch.setattr(data_import, "CIFAR10_MD5", hashlib.md5(content).hexdigest())
    urls = [f"{server}/{name}/{data_import.CIFAR10}" for name in ("none", "bad", "good")]
    (tmp_path / "raw").mkdir()
    data_import.fetch_cifar10(tmp_path / "raw", urls)
    assert (tmp_path / "raw" / "cifar-10-batches-py" / "batch").read_text() == "cat"
    assert "cifar10 from 127.0.0.1" in capsys.readouterr().out
    with pytest.raises(DatasetNotFoundError, match="404: File not found; 127.0.0.1.*: another file, or a damaged one"):
        data_import.fetch_cifar10(tmp_path / "raw", urls[:2])
    monkeypatch.setattr(data_import.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    with pytest.raises(DatasetNotFoundError, match="too slow, 0 kB/s"):  # but of the last one more patience is had
        data_import.fetch_cifar10(tmp_path / "raw", [urls[2], urls[1]])


# Larger images: the bytes of their files


def photos(folder):
    """Three JPEG files and a grey PNG, one of them large."""
    for number, (name, size) in enumerate({"a.jpg": (90, 120), "b.jpg": (500, 300), "c.jpg": (70, 70)}.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        (folder / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "cat" / name, quality=90)
    Image.fromarray(pixels[..., 0].copy()).save(folder / "cat" / "d.png")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_larger_images_are_kept_as_the_bytes_of_their_files(cache, tmp_path, workers):
    counts, _ = import_folder("photos-here", photos(tmp_path / "in"), 80, workers=workers)
    assert counts == {"train": 4} and verify_dataset("photos-here") == []
    dataset, folder = load_dataset("photos-here"), load_dataset(tmp_path / "in", image_size=80)
    assert isinstance(dataset, ImageFiles) and dataset.image_size == 80 and len(dataset) == 4
    for i, name in enumerate(["a.jpg", "b.jpg", "c.jpg", "d.png"]):
        same = dataset.paths[i].read() == (tmp_path / "in" / "cat" / name).read_bytes()
        assert same == (name != "b.jpg")
        assert same == torch.equal(dataset[i][0], folder[i][0])
    with Image.open(dataset.paths[1]) as smaller:
        assert smaller.size == (267, 160)
    drawn = torch.rand((4, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(dataset.batch([3, 0], drawn[[3, 0]])[0], folder.batch([3, 0], drawn[[3, 0]])[0])
    assert load_dataset("photos-here", image_size=32)[0][0].shape == (3, 32, 32)
    before = fingerprint(dataset)
    assert fingerprint(pickle.loads(pickle.dumps(dataset))) == before != fingerprint(folder)


@pytest.mark.parametrize("file", ["train_images.bin", "train_ends.npy", "train_labels.npy"])
def test_damaged_bytes_of_files(cache, tmp_path, file):
    import_folder("photos-here", photos(tmp_path / "in"), 80, workers=0)
    path = cache / "photos-here" / file
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SelfieLiteError, match="photos-here is damaged"):
        load_dataset("photos-here")
    assert verify_dataset("photos-here") == [file]
    import_folder("photos-here", photos(tmp_path / "in"), 80, workers=0, replace=True)
    bits = bytearray((cache / "photos-here" / "train_images.bin").read_bytes())
    bits[:20] = bytes(20)
    (cache / "photos-here" / "train_images.bin").write_bytes(bits)
    with pytest.raises(UnreadableImageError, match="image 0 of .*train_images.bin: cannot be read"):
        load_dataset("photos-here").batch([1, 0])


# ImageNet at 32 pixels, as it is released


@pytest.mark.parametrize("form", ["npz", "pickle", "python 2"])
def test_the_downsampled_imagenet(cache, tmp_path, form):
    rng, folder = np.random.default_rng(0), tmp_path / "release"
    batches = {f"{n}": (rng.integers(0, 256, (5, 3072), dtype=np.uint8), [3, 1, 2, 1, 3]) for n in range(1, 4)}
    (folder / "Imagenet32_val").mkdir(parents=True)
    for name, (pixels, labels) in batches.items():
        path = folder / f"train_data_batch_{name}" if name != "3" else folder / "Imagenet32_val" / "val_data"
        if form == "npz":
            np.savez(f"{path}.npz", data=pixels, labels=np.array(labels), mean=pixels.mean(axis=0))
        else:
            batch = {"data": pixels, "labels": labels, "mean": pixels.mean(axis=0)}
            path.write_bytes(pickle.dumps(batch, protocol=2 if form == "python 2" else None))
    assert import_folder("imagenet32", folder)[0] == {"train": 10, "test": 5}
    train, test = load_dataset("imagenet32"), load_dataset("imagenet32", "test")
    assert train.labels.tolist() == [2, 0, 1, 0, 2] * 2 and train.classes == ["1", "2", "3"]
    assert torch.equal(train.images[5:], torch.from_numpy(batches["2"][0]).view(5, 3, 32, 32))
    assert torch.equal(test.images, torch.from_numpy(batches["3"][0]).view(5, 3, 32, 32))
    assert verify_dataset("imagenet32") == []


def test_batches_that_are_none_of_imagenet(cache, tmp_path):
    (tmp_path / "release").mkdir()
    path = tmp_path / "release" / "train_data_batch_1"
    for content, said in [
        (pickle.dumps(print), "it calls builtins.print"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}), "labels from 1, .*2, 3072. uint8"),
        (pickle.dumps({"data": np.zeros((2, 12288), np.uint8), "labels": [1, 1]}), "should hold pixels .n, 3072"),
        (b"", "is no batch of the downsampled ImageNet"),
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(SelfieLiteError, match=f"train_data_batch_1.*{said}"):
            import_folder("imagenet32", tmp_path / "release")
    assert list(cache.iterdir()) == []
    with pytest.raises(DatasetNotFoundError, match="selfie-lite data import imagenet32 FOLDER"):
        load_dataset("imagenet32")
