"""The evidence at full size by one command, in the minutes that there are: parts in order of worth, each planned from a
short measurement, each to be stopped and gone on with, each writing its results as they are there."""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, suppress
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from selfie_lite.benchmarks.checks import checks
from selfie_lite.benchmarks.devices import ending_after, on_all_devices
from selfie_lite.benchmarks.ladder import UNTRAINED, Budget, going_on, lines_of, run_ladder
from selfie_lite.benchmarks.pretraining import bench_pretraining
from selfie_lite.benchmarks.public import against_public
from selfie_lite.benchmarks.scale import SCALES, Scale
from selfie_lite.benchmarks.step import Step
from selfie_lite.benchmarks.timing import timed
from selfie_lite.data.datasets import load_dataset
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.evaluation.ladder import by_arm, read_ladder
from selfie_lite.evaluation.results import fraction_table, read_results
from selfie_lite.files import read_json, write_file
from selfie_lite.machine import best_device, environment
from selfie_lite.training.device import compiles
from selfie_lite.training.finetune import SCRATCH, FinetuneConfig, finetune
from selfie_lite.training.pretrain import PretrainConfig
from selfie_lite.workbook.notebook import folder_of_runs
from selfie_lite.workbook.walkthrough import NOTEBOOKS

LADDER = NOTEBOOKS / "results" / "ladder.jsonl"
PROBE = 5  # seconds that a linear probe takes, about
STATE: dict[str, type | tuple[type, ...]] = {
    "scale": str, "spent": (int, float), "measured": dict, "plans": dict, "parts": dict
}  # fmt: skip


def reproduce(
    folder: Path, minutes: float = 25, only: Sequence[str] = (), scale: str = "full", public: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, dict]:  # fmt: skip
    """Run the parts, or those of `only`, in `folder`, or go on with them; gives what became of each part.

    Args:
        minutes: of work, over all calls with this folder. A part that would need more is left out, and says so.
        public: a folder with the files of wuhoward/SELFIE, to be timed beside ours.

    Raises:
        SelfieLiteError: for a part or scale that is none, or a folder of another scale.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the same call goes on.
    """
    for part in only:
        require_choice("part", part, PARTS)
    require_choice("scale", scale, SCALES)
    public = public and public.resolve()
    if os.environ.get("SELFIE_LITE_DATA"):
        os.environ["SELFIE_LITE_DATA"] = str(Path(os.environ["SELFIE_LITE_DATA"]).expanduser().resolve())
    many = torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=1000)  # models in one process
    with folder_of_runs(folder, "reproduction"), chdir(folder), many:
        work = Reproduction(minutes, scale, public, say)
        todo = [part for part in PARTS if part in (only or PARTS)]
        for number, part in enumerate(todo):
            work.run(part, WORTH[part] / sum(WORTH[later] for later in todo[number:]))
        return {part: work.state["parts"][part] for part in todo}


class Reproduction:
    """The state of a reproduction, kept in reproduce.json of the present folder; each part has a folder in it."""

    def __init__(self, minutes: float, scale: str, public: Path | None, say: Callable[[str], None]):
        self.file = Path("reproduce.json").absolute()
        self.state: dict[str, Any] = {"scale": scale, "spent": 0.0, "measured": {}, "plans": {}, "parts": {}}
        if self.file.exists():
            self.state = read_json(self.file, "the state of a reproduction", STATE)
        if self.state["scale"] != scale:
            raise SelfieLiteError(f"{self.file.parent} is of scale {self.state['scale']}: choose another --out.")
        self.minutes, self.scale, self.public, self.print = minutes, SCALES[scale](), public, say
        self.before, self.start = self.state["spent"], time.perf_counter()

    @property
    def left(self) -> float:
        """Seconds."""
        return 60 * self.minutes - self.before - (time.perf_counter() - self.start)

    def say(self, text: str) -> None:
        self.state["spent"] = round(self.before + time.perf_counter() - self.start, 1)
        self.state["environment"] = environment()
        write_file(self.file, json.dumps(self.state, indent=1) + "\n")
        self.print(text)

    def run(self, part: str, share: float) -> None:
        """One part, in its share of what is left, or a third more if that is there; whatever it fails of, the next
        part has its turn."""
        if self.state["parts"].get(part, {}).get("outcome") == "done":
            return
        begun, seconds = self.left, share * self.left
        outcome, why = "not done", "no time was left"
        if seconds > 1:
            self.say(f"{part}: {seconds:.0f} s")
            try:
                Path(part).mkdir(exist_ok=True)
                with ending_after(min(1.3 * seconds, self.left)) as ended, chdir(part):
                    PARTS[part](self, seconds)
                outcome, why = "done", ""
            except KeyboardInterrupt:
                why = "its time was used up: with more minutes the same command goes on with it"
                if not ended:
                    self.state["parts"][part] = {"outcome": outcome, "why": "stopped: the same command goes on with it"}
                    self.say(f"{part}: stopped")
                    raise
            except Exception as error:  # no data, too little memory, whatever a new card brings
                why = str(error) if isinstance(error, SelfieLiteError) else f"{type(error).__name__}: {error}"
        self.state["parts"][part] = {"outcome": outcome, "seconds": round(begun - self.left, 1), "why": why}
        self.say(f"{part}: {outcome}{why and f' ({why})'}")

    def items(self, file: Path, calls: dict[str, Callable[[], Any]]) -> None:
        """Make each item of a JSON file that is not in it yet, and write the file after each."""
        found = read_json(file, "a result of reproduce", {}) if file.exists() else {}
        for name, call in calls.items():
            if name not in found:
                found |= {name: call(), "environment": environment()}
                write_file(file, json.dumps(found, indent=1) + "\n")
                self.say(f"  {file.stem}: {name}")

    def measured(self, config: PretrainConfig) -> dict[str, Any]:
        """Batch size and seconds a step of this geometry, measured once: the smallest batch within 5 % of the most
        images/s, and there the step as `pretrain` makes it."""
        known, key = self.state["measured"], f"{config.arch} {config.image_size}"
        if key not in known:
            known[key] = measure(config, self.scale.batches, self.scale.seconds)
            self.say(f"  {key} pixels: {known[key]}")
        return known[key]

    def plan(self, part: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was planned for a part when it was begun: runs that are gone on with keep their settings."""
        if part not in self.state["plans"]:
            self.state["plans"][part] = make()
            self.say(f"  plan: {self.state['plans'][part]}")
        return self.state["plans"][part]


def measure(config: PretrainConfig, batches: Sequence[int], seconds: float) -> dict[str, Any]:
    speed: dict[int, float] = {}
    config = config.updated(steps=10**9)
    for batch in batches:
        try:
            step = Step(config.updated(batch_size=batch, compile="no"))
            step()
            speed[batch] = batch / timed(step, max(2, int(seconds / timed(step, 1))))
            del step  # its memory, before the next
        except torch.OutOfMemoryError:
            break
    if not speed:
        raise SelfieLiteError(f"the device has too little memory for {batches[0]} images.")
    batch = min(batch for batch in speed if speed[batch] >= 0.95 * max(speed.values()))
    found: dict[str, Any] = {"batch_size": batch, "eager": batch / speed[batch], "compiled": None, "setup": 0.0}
    if compiles(config, best_device()):
        start = time.perf_counter()
        step = Step(config.updated(batch_size=batch))
        step()
        found["setup"] = time.perf_counter() - start
        found["compiled"] = timed(step, max(2, int(seconds / found["eager"])))
    return found


def steps_in(seconds: float, runs: int, runs_of_steps: float, measured: dict, scale: Scale) -> tuple[int, str]:
    """Steps of each run, so that `runs` of them, which have `runs_of_steps` times as many steps together, end in time;
    and whether compiling pays: "auto" or "no"."""
    eager, compiled = seconds / (runs_of_steps * measured["eager"]), 0.0
    if measured["compiled"]:
        compiled = (seconds - runs * measured["setup"]) / (runs_of_steps * measured["compiled"])
    return min(max(int(max(eager, compiled)), scale.least), scale.most), "auto" if compiled > eager else "no"


def check(work: Reproduction, seconds: float) -> None:
    config = work.scale.pretrain["cifar10"].updated(batch_size=work.scale.batches[0])
    work.items(Path("../check.json"), checks(config, work.scale.batches))


def speed(work: Reproduction, seconds: float) -> None:
    """One part of the benchmark after the other, at both sizes; the public implementation first of all."""
    scale = work.scale
    calls: dict[str, Callable[[], Any]] = {}
    turns: dict[str, Any] = {"rounds": scale.rounds, "seconds": scale.seconds / 3}
    config = scale.timed["32"]
    if work.public:
        calls["public"] = partial(against_public, work.public, config, **turns)
    for part in scale.bench:
        for pixels, config in scale.timed.items():
            calls[f"{part}, {pixels} pixels"] = partial(
                lambda c, p: bench_pretraining(c, [p], **turns)[p], config, part
            )
    calls["config"] = lambda: {pixels: config.to_dict() for pixels, config in scale.timed.items()}
    work.items(Path("../speed.json"), calls)


def pretraining(work: Reproduction, part: str, seconds: float, seeds: int) -> dict[str, Any]:
    """Every arm of a part: its learning rate searched on training images, then pretrained and probed, one line each in
    PART_pretraining.jsonl; gives the plan, which has the arms in order of what notebook 08 says of them."""
    scale, config = work.scale, work.scale.pretrain[part]
    for split in ("train", "test"):
        load_dataset(config.data, split, download=False)

    def make() -> dict[str, Any]:
        arms, measured = by_worth(scale.arms[part]), work.measured(config)
        tried = len(scale.rates) / 8  # of the steps
        runs = min(len(arms), 6)  # the others follow if there is time
        spare = 0.8 * seconds - PROBE * runs * (3 + len(scale.rates))
        steps, compiling = steps_in(spare, runs * (1 + len(scale.rates)), runs * (1 + tried), measured, scale)
        return {"arms": arms, "steps": steps, "compile": compiling, "batch_size": measured["batch_size"]}

    plan = work.plan(part, make)
    budget = Budget(
        f"{config.arch}, {config.image_size} pixels", config.data, plan["steps"], plan["batch_size"],
        max(2, plan["steps"] // 8), scale.rates, held_out=config.held_out,
        probe_images=scale.images, test_images=scale.images, puzzles=scale.images,
    )  # fmt: skip
    file = Path(f"../{part}_pretraining.jsonl")
    base = config.updated(compile=plan["compile"], batch_size=plan["batch_size"])
    call = partial(run_ladder, file, [*plan["arms"], UNTRAINED], range(seeds), budget, base=base)
    on_all_devices([call] * max(1, torch.accelerator.device_count()), work.say)
    return plan


def transfer(part: str, work: Reproduction, seconds: float) -> None:
    """Pretrain, then fine-tune from each P and from scratch, the last step counting; one line each in PART.jsonl."""
    scale, plan = work.scale, pretraining(work, part, 0.6 * seconds, 1)
    if "fine_steps" not in plan:
        runs = len(scale.labels[part]) * scale.seeds[part] * (1 + len(plan["arms"])) + 2 * len(scale.fine_rates)
        measured = work.measured(scale.pretrain[part])
        each = 1.5 * measured["eager"] / measured["batch_size"] * scale.finetune[part].batch_size  # a fourth block
        plan["fine_steps"] = steps_in(0.3 * seconds, runs, runs, measured | {"eager": each, "compiled": None}, scale)[0]
    steps, starts = plan["fine_steps"], [SCRATCH, *plan["arms"]]
    base = scale.finetune[part].updated(
        data=scale.pretrain[part].data, steps=steps, warmup_steps=steps // 10, eval_every=0, save_every=steps, keep=1,
        arch=scale.pretrain[part].arch, image_size=scale.pretrain[part].image_size, compile="no",
    )  # fmt: skip
    jobs = [
        partial(tune, base, start, scale.labels[part][0], 0, rate, "")
        for start in starts[:2] for rate in scale.fine_rates
    ]  # fmt: skip
    tried = on_all_devices(jobs, work.say)
    worth = {rate: mean(tried[number :: len(scale.fine_rates)]) for number, rate in enumerate(scale.fine_rates)}
    plan |= {"fine_rates": worth, "fine_rate": max(worth, key=lambda rate: worth[rate])}
    results = f"../{part}.jsonl"
    on_all_devices([
        partial(tune, base, start, labels, seed, plan["fine_rate"], results)
        for labels in scale.labels[part] for seed in range(scale.seeds[part]) for start in starts
    ], work.say)  # fmt: skip
    write_file(Path(f"../{part}.json"), json.dumps({
        "plan": plan, "measured": work.state["measured"], "table": fraction_table(read_results(results)),
        "environment": environment(),
    }, indent=1) + "\n")  # fmt: skip


def tune(
    base: FinetuneConfig, start: str, labels: float, seed: int, rate: float, results: str,
    say: Callable[[str], None] = print,
) -> float:  # fmt: skip
    """Fine-tune, or go on, or find it done; gives the accuracy on the validation part. The test images are read if the
    result is to be kept."""
    source = start if start == SCRATCH else f"runs/ladder-pretrain-{start}-0"
    name = f"{start}-{labels:g}-{seed}-{rate:g}"
    config = base.updated(
        name=name if results else f"search-{name}", pretrained=source, labels=labels, seed=seed, learning_rate=rate,
        test=bool(results), results=results,
    )  # fmt: skip
    lines = lines_of(finetune(going_on(config)), config.steps)
    say(f"  {config.name}: {lines[-1]['validation_accuracy']:.3f}")
    return lines[-1]["validation_accuracy"]


def by_worth(arms: Sequence[str]) -> list[str]:
    """Arms by the linear probe that notebook 08 has recorded, the best first; those that it has not, last."""
    found: dict[str, dict[int, float]] = {}
    with suppress(SelfieLiteError):  # lines that cannot be compared say nothing here
        found = by_arm(read_ladder(LADDER), "pretrain", "whole", "linear")
    return sorted(arms, key=lambda arm: -mean(found.get(arm, {0: 0.0}).values()))


def ladder(work: Reproduction, seconds: float) -> None:
    pretraining(work, "ladder", seconds, work.scale.seeds["ladder"])


PARTS: dict[str, Callable[[Reproduction, float], None]] = {
    "check": check,
    "speed": speed,
    "cifar10": partial(transfer, "cifar10"),
    "ladder": ladder,
    "imagenette": partial(transfer, "imagenette"),
}
WORTH = {"check": 2, "speed": 5, "cifar10": 10, "ladder": 4, "imagenette": 4}  # shares of the time
