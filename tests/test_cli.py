"""The command line as a user meets it."""

import subprocess
import sys

import pytest
import torch
from PIL import Image
from tiny import run_command as run

from selfie_lite import load_dataset


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
    ],
)
def test_mistakes_get_one_message(words, message, monkeypatch, capsys):
    assert run(monkeypatch, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and "Traceback" not in said


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("selfie_lite.data.catalog.installed_datasets", stop)
    assert run(monkeypatch, "data", "list") == 130
    assert "Traceback" not in capsys.readouterr().err
