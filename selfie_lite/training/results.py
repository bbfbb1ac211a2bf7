"""What a fine-tuning run came to: the test images read once, result.json, and a line in a file of results, which is
tried before any work and is never what is not ours. `config` is the `FinetuneConfig` of the run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from selfie_lite.data.datasets import load_dataset
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, read_json, read_json_lines, words_of, write_file
from selfie_lite.machine import environment
from selfie_lite.training.checkpoint import list_checkpoints
from selfie_lite.training.classifier import evaluate_classifier, load_classifier
from selfie_lite.training.device import PlainAccelerator
from selfie_lite.training.run import best_line, read_metrics

RESULT: dict[str, type | tuple[type, ...]] = {"config": dict, "validation_accuracy": (int, float)}  # every one has
RESULT_FILE = "result.json"


def ended_result(config: Any) -> dict | None:
    """The result of the run that `config` asks to resume, if that has ended; None if there is something to do."""
    checkpoints = list_checkpoints(config.folder / "checkpoint")
    last = bool(checkpoints) and int(checkpoints[-1].name) == config.steps
    if config.resume not in ("newest", str(config.steps)) or not last:
        return None
    try:
        result = read_json(config.folder / RESULT_FILE, "a result", RESULT | {"chosen_step": int})
    except SelfieLiteError:
        return None
    there = type(config)().to_dict() | result["config"]
    unsaid = {name for name in ("arch", "stem") if not getattr(config, name)}
    same = all(there[k] == v for k, v in config.to_dict().items() if k not in config.FREE | unsaid)
    return result if same and ("test_accuracy" in result or not config.test) else None


def write_result(config: Any, accelerator: PlainAccelerator, more: dict) -> None:
    """What a finished run has come to, in runs/NAME/result.json; if `config.test`, with the accuracy on the test
    images, read with the weights that the run has kept."""
    chosen = best_line(read_metrics(config.folder), "validation_accuracy")
    result = {"validation_accuracy": chosen["validation_accuracy"], "chosen_step": chosen["step"]}
    if config.test:
        dataset = load_dataset(config.data, "test", config.image_size)
        model = load_classifier(config.folder).to(accelerator.device, memory_format=torch.channels_last)
        everything = torch.arange(len(dataset))
        _, accuracy = evaluate_classifier(model, dataset, everything, config.batch_size, accelerator, config.workers)
        result = {"test_accuracy": accuracy, "test_images": len(dataset)} | result
    if not accelerator.is_main_process:
        return
    result |= more | {
        "config": config.to_dict() | {"resume": "", "results": ""},
        "environment": environment(accelerator.device),
    }
    accelerator.print(f"{config.folder}: {in_words(result)}.")
    lost = f"The weights are kept: make room, and --name {config.name} --resume newest writes the result."
    with disk_errors_in_words(config.folder, lost):
        write_file(config.folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    readme = config.folder / "README.md"
    try:
        before = readme.read_text(encoding="utf-8").split("\nResult (`")[0] if readme.is_file() else ""
        write_file(readme, f"{before}\nResult (`{RESULT_FILE}`): {in_words(result)}.\n")
    except (OSError, ValueError) as error:
        accelerator.print(f"{readme} could not be written ({error}); the result is in {config.folder / RESULT_FILE}.")
    keep_result(config, result, accelerator.print)


def keep_result(config: Any, result: dict, say: Callable[[str], None] = print) -> None:
    """Append a result to the file `config.results`, if one is named, as one line; one from the same settings with the
    same accuracies is not written twice. A run is not lost because that cannot be done."""
    if not config.results:
        return
    file, same = Path(config.results).expanduser(), ("config", "test_accuracy", "validation_accuracy")
    try:
        if any(all(other.get(name) == result.get(name) for name in same) for other in own_lines(file)):
            return
        append_line(file, result)
    except (OSError, SelfieLiteError) as error:
        words = words_of(error) if isinstance(error, OSError) else error
        say(f"{config.results} got no line ({words}). The result is in {config.folder / RESULT_FILE}.")


def in_words(result: dict) -> str:
    """A result as the end of a sentence."""
    words = f"validation accuracy {result['validation_accuracy']:.3f} at step {result['chosen_step']}, the best"
    if "test_accuracy" in result:
        number = f"{result['test_accuracy']:.3f} on {result['test_images']:,} images"
        words += f"; with those weights test accuracy {number}"
    return words


def own_lines(file: Path) -> list[dict]:
    """The results in a file, none if it is not there yet.

    Raises:
        SelfieLiteError: if it cannot be written, or holds something else.
    """
    try:
        there = file.is_symlink() or file.exists()
        nearest = file if there else next(folder for folder in file.absolute().parents if folder.exists())
    except (OSError, ValueError) as error:
        words = words_of(error) if isinstance(error, OSError) else error
        raise SelfieLiteError(f"'{file}' cannot be a file ({words}).") from None
    if not (nearest.is_file() if there else nearest.is_dir()):
        raise SelfieLiteError(
            f"{file} cannot be written: {nearest} is {'no file' if there else 'a file, not a folder'}."
        )
    if not os.access(nearest, os.W_OK):
        raise SelfieLiteError(f"{file} cannot be written: there is no permission, or the disk is read-only.")
    text = file.read_bytes() if there else b""
    try:
        lines = read_json_lines(file, "the result of a fine-tuning run", RESULT) if there else []
    except SelfieLiteError as error:
        raise SelfieLiteError(f"{error} Results are not appended to such a file: name another.") from None
    if text and not lines and not _is_json(text):
        raise SelfieLiteError(f"{file} holds no results of fine-tuning runs: name another file.")
    return lines


def append_line(file: Path, value: dict) -> None:
    """Append an object to a JSON-lines file, which may be new. A last line without its end is ended, or taken away if a
    killed process left but half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+b") as opened:
        opened.seek(0)
        text = opened.read()
        rest = text.rpartition(b"\n")[2]
        if rest and not _is_json(rest):
            opened.truncate(len(text) - len(rest))
        end = b"\n" if rest and _is_json(rest) else b""
        opened.write(end + json.dumps(value).encode() + b"\n")  # one write, so that two runs do not mix their lines


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
