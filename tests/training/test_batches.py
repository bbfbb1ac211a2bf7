"""Reading images, in memory and in worker processes."""

import os
import re
import signal
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import assert_same, weights_of, workplace  # noqa: F401
from tiny import config

from selfie_lite import SelfieLiteError, load_dataset
from selfie_lite.data import datasets
from selfie_lite.data.datasets import ImageFiles
from selfie_lite.data.folders import FileNames
from selfie_lite.training.batches import Batches, fingerprint, read_batches
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.pretrain import pretrain, split_held_out
from selfie_lite.training.randomness import batch_indices


def test_streamed_and_resident_images_give_the_same_training(tmp_path):
    for i, image in enumerate(load_dataset("tiny").images):
        (tmp_path / "files").mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "files" / f"{i:03}.png")
    resident = pretrain(config())
    streamed = pretrain(config(name="streamed", data=str(tmp_path / "files"), workers=1))
    assert_same(weights_of(resident), weights_of(streamed))


def write_pictures(folder):
    folder.mkdir()
    for i, image in enumerate(load_dataset("tiny").images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.png")


def test_a_broken_image_met_by_a_worker_is_named_and_what_was_trained_is_saved(tmp_path):
    write_pictures(tmp_path / "files")
    settings = dict(data=str(tmp_path / "files"), workers=2, save_every=12)
    keep, _ = split_held_out(48, 8)
    broken = tmp_path / "files" / f"{int(keep[batch_indices(40, 8, step=4, seed=3)][0]):03}.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SelfieLiteError, match=f"{broken.name}.* The 4 steps trained so far are saved") as error:
        pretrain(config(**settings))
    assert "Traceback" not in str(error.value)
    broken.write_bytes(whole)
    pretrain(config(resume="newest", **settings))
    assert_same(weights_of(pretrain(config(name="straight"))), weights_of("runs/tiny"))


def test_a_worker_is_deaf_to_signals_and_its_death_is_told(tmp_path):
    write_pictures(tmp_path / "files")
    c = config(data=str(tmp_path / "files"), workers=1, steps=1000)
    source = Batches(load_dataset(c.data, image_size=16), torch.arange(40), c, make_accelerator(c)).start(0)
    next(source)
    (worker,) = active_children()
    os.kill(worker.pid, signal.SIGTERM)
    next(source)
    assert worker.is_alive()
    worker.kill()
    with pytest.raises(SelfieLiteError, match="reading images in 1 processes failed.*--workers"):
        for _ in source:
            pass


def test_a_fingerprint_knows_names_labels_and_pixels(tmp_path):
    write_pictures(tmp_path / "files")
    before = fingerprint(load_dataset(tmp_path / "files", image_size=16))
    (tmp_path / "files").rename(tmp_path / "moved")
    assert fingerprint(load_dataset(tmp_path / "moved", image_size=16)) == before, "the folder's name is no matter"
    (tmp_path / "moved" / "003.png").rename(tmp_path / "moved" / "3.png")
    assert fingerprint(load_dataset(tmp_path / "moved", image_size=16)) != before
    arrays = load_dataset("tiny")
    before = fingerprint(arrays)
    arrays.images = arrays.images + 1
    assert fingerprint(arrays) != before


def write_photos(folder, count=12):
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.jpg")
    return folder


def test_crops_of_whole_images_follow_from_seed_and_step_alone(tmp_path):
    """Whatever reads them, and wherever a run goes on; each image and each step has its own."""
    dataset = load_dataset(write_photos(tmp_path / "photos"), image_size=72)
    c = config(data=str(tmp_path / "photos"), image_size=72, patch_size=24, batch_size=4, steps=7, held_out=1)

    def crops(first, **changes):
        one = c.updated(**changes)
        batches = Batches(dataset, torch.arange(12), one, make_accelerator(one))
        return [batches.crop(images, torch.Generator()) for images, _ in batches.start(first)]

    straight = crops(0, workers=0)
    assert len(straight) == 7 and straight[0].shape == (4, 3, 72, 72)
    for first, workers in ((0, 1), (0, 3), (3, 0), (5, 2)):
        again = crops(first, workers=workers)
        assert len(again) == 7 - first and all(map(torch.equal, again, straight[first:]))
    views = torch.cat([*straight, *crops(0, workers=0, seed=9)])
    assert len(views.flatten(1).unique(dim=0)) == 56


def test_no_image_is_decoded_by_the_process_that_trains(tmp_path, monkeypatch):
    """Training and evaluation read in workers."""
    write_photos(tmp_path / "photos", 24)
    read, seen = datasets.read_image, tmp_path / "seen"

    def note(*arguments, **more):
        with open(seen, "a") as file:
            file.write(f"{os.getpid()} ")
        return read(*arguments, **more)

    monkeypatch.setattr(datasets, "read_image", note)
    pretrain(config(data=str(tmp_path / "photos"), image_size=72, patch_size=24, steps=2, eval_every=1, workers=1))
    readers = seen.read_text().split()
    assert len(readers) == 2 * 8 + 2 * 8 and str(os.getpid()) not in readers


def private_kilobytes(names, count):
    """Of a worker process, after it has looked at every name."""

    class Names(ImageFiles):
        def __post_init__(self):
            pass

        def batch(self, part):
            for i in range(len(self.paths)):
                self.paths[i]
            used = re.search(r"Private_Dirty: +(\d+)", Path("/proc/self/smaps_rollup").read_text())
            return torch.tensor([int(used[1])]), torch.zeros(1)

    dataset = Names("x", "train", names, torch.zeros(count), ["a"], 4)
    return int(next(read_batches(dataset, iter([([0],)]), 1, torch.device("cpu")))[0])


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="Linux says how much of its memory is shared")
def test_workers_share_the_names_of_the_files():
    names = [f"train/n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG" for i in range(300_000)]
    packed = FileNames(names)
    assert private_kilobytes(names, 1) - private_kilobytes(packed, 1) > 15_000
    assert private_kilobytes(packed, 1) - private_kilobytes(FileNames(names[:10]), 1) < 4000
