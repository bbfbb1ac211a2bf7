"""Reading images, in memory and in worker processes."""

import os
import signal

import pytest
import torch
from PIL import Image
from runs import assert_same, weights_of, workplace  # noqa: F401
from tiny import config

from selfie_lite import SelfieLiteError, load_dataset
from selfie_lite.training.batches import Batches, fingerprint
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.pretrain import pretrain, split_held_out
from selfie_lite.training.randomness import batch_indices


def test_streamed_and_resident_images_give_the_same_training(tmp_path):
    from PIL import Image

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
    from multiprocessing import active_children

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
