"""What a fine-tuning run came to: the test images read once, result.json, the line in a file of results. `config` is
the `FinetuneConfig` of the run (finetune.py imports this file)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from selfie_lite.data.datasets import load_dataset
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, read_json, words_of, write_file
from selfie_lite.machine import environment
from selfie_lite.training.checkpoint import list_checkpoints
from selfie_lite.training.classifier import evaluate_classifier, load_classifier
from selfie_lite.training.result_file import RESULT, append_line
from selfie_lite.training.run import best_line, read_metrics

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


def write_result(config: Any, accelerator: Accelerator, more: dict) -> None:
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
    result |= more | {"config": config.to_dict() | {"resume": "", "results": ""}, "environment": environment()}
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


def keep_result(config: Any, result: dict, say: Callable[[str], None]) -> None:
    """Append a result to the file `config.results`, if one is named; a run is not lost because that cannot be done."""
    if not config.results:
        return
    try:
        append_line(Path(config.results).expanduser(), result)
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
