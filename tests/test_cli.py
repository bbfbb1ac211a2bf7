"""The command line as a user meets it."""

import errno
import os
import subprocess
import sys

import click
import pytest
import torch
from PIL import Image
from tiny import run_command as run

from selfie_lite import load_dataset
from selfie_lite.cli.base import COMMANDS, app


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Six images of 32×32 in two classes, in train/ and test/."""
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    pixels = torch.randint(256, (12, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for i, image in enumerate(pixels):
        folder = tmp_path / "pictures" / ("train", "test")[i % 2] / ("cat", "dog")[i // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{i:02}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("words", [["selfie_lite.cli"], ["selfie_lite"]])
def test_both_ways_in_are_the_same_command(words):
    start = ["-c", "from selfie_lite.cli import main; main()"] if words == ["selfie_lite.cli"] else ["-m", *words]
    done = subprocess.run([sys.executable, *start, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "walkthrough" in done.stdout and "Usage: selfie-lite" in done.stdout


def test_import_list_verify(pictures, monkeypatch, capsys):
    assert run(monkeypatch, "data", "import", "pets", str(pictures), "--size", "32", "--workers", "0") == 0
    assert "pets: 6 train, 6 test images" in " ".join(capsys.readouterr().out.split())
    assert run(monkeypatch, "data", "list") == 0
    assert "pets" in capsys.readouterr().out
    assert run(monkeypatch, "data", "verify", "pets") == 0
    assert "pets: whole" in capsys.readouterr().out
    images = load_dataset("pets").images
    file = pictures.parent / "cache" / "pets" / "train_images.bin"
    file.write_bytes(bytes([images.flatten()[0].item() ^ 1]) + file.read_bytes()[1:])
    assert run(monkeypatch, "data", "verify") == 1
    said = capsys.readouterr()
    assert "pets: damaged or missing: train_images.bin" in said.out and "sample: whole" in said.out


def test_unreadable_image_is_named_or_skipped(pictures, monkeypatch, capsys):
    (pictures / "train" / "cat" / "broken.png").write_text("<html>not found</html>")
    assert run(monkeypatch, "data", "import", "pets", str(pictures), "--size", "32", "--workers", "0") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "broken.png" in said and "--skip-unreadable" in said and "Traceback" not in said
    words = ["data", "import", "pets", str(pictures), "--size", "32", "--workers", "0", "--skip-unreadable"]
    assert run(monkeypatch, *words) == 0
    assert "1 unreadable image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["walkthrogh"], "Did you mean 'walkthrough'"),
        (["data", "imprt"], "Did you mean 'import'"),
        (["data", "import", "x", "/tmp", "--siz", "3"], "--size"),
        (["data", "import", "x", "no/such/folder"], "there is no folder 'no/such/folder'"),
        (["data", "import", "sample", "."], "bundled"),
        (["data", "import", "a/b", "."], "letters, digits"),
        (["data", "download", "cifr10"], "Did you mean 'cifar10'"),
        (["data", "download", "imagenet"], "ln -s"),
        (["data", "verify", "smple"], "Did you mean 'sample'"),
        (["data", "import", "x", ""], "it is empty"),
        (["pretrain", "--preset", "labtop"], "Did you mean 'laptop'"),
        (["pretrain", "--preset", ""], "it is empty"),
        (["pretrain", "--config", ""], "it is empty"),
        (["pretrain", "--queries", ""], "it is empty"),
        (["pretrain", "--steps", "1e9.5"], "is not a whole number"),
        (["pretrain", "--steps", "1e3", "--batch-size", "1e4"], "batch_size 10000 is more than"),
        (["finetune", "--from", ""], "it is empty"),
        (["bench", "pretrain", "--arch", "resnet51"], "Did you mean 'resnet50'"),
        (["bench", "pretrain", "--part", "lader"], "Did you mean 'ladder'"),
        (["bench", "ladder", "--arm", "aditive"], "Did you mean 'additive'"),
        (["export", "--from", "additive", "--to", "torchvisio", "x"], "Did you mean 'torchvision'"),
        (["export", "--from", "additive", "--to", "hub", ""], "it is empty"),
        (["sweep", "", "-p", "seed", "1"], "it is empty"),
        (["reproduce", "--only", "chek"], "Did you mean 'check'"),
        (["reproduce", "--minutes", "0"], "from 0.01 to"),
    ],
)
def test_mistakes_get_one_message(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and "Traceback" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 2, "memory of this machine is full"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full, or a quota is"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "the disk is full, or a quota is"),
        (PermissionError(errno.EACCES, "Permission denied", "there"), 2, "error: there: permission denied"),
        (ModuleNotFoundError("no", name="papermill.iorw"), 2, "pip install 'selfie-lite[notebooks]'"),
        (RuntimeError("CUDA error: a mistake of ours"), "a traceback", ""),
    ],
)
def test_what_ends_a_command_is_a_sentence(error, code, message, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("selfie_lite.data.catalog.installed_datasets", fail)
    if code == "a traceback":  # what only a developer can mend
        with pytest.raises(RuntimeError, match="of ours"):
            run(monkeypatch, "data", "list")
        return
    assert run(monkeypatch, "data", "list") == code
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and "Traceback" not in said


@pytest.mark.parametrize("words", [["--help"], ["data", "list"]])
def test_a_reader_that_leaves_early_is_no_mistake(words):
    """As in `selfie-lite data list | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "selfie_lite", *words], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""


def test_every_command_is_in_the_overview_and_the_other_way_round():
    context = click.Context(app)
    for name in COMMANDS:
        assert app.get_command(context, name).name == name
    assert app.commands.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_what_is_not_said_is_left_to_the_preset(name):
    context = app.get_command(click.Context(app), name).make_context(name, [])
    assert {value for option, value in context.params.items() if option != "rates"} == {None}
