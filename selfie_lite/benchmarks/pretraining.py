"""How fast a pretraining step is, rung by rung, and how far from what the machine could do."""

import json
import multiprocessing
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import patch_environment
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from selfie_lite.augment import MEAN, STD, normalize
from selfie_lite.benchmarks.timing import in_turns, speeds, spread
from selfie_lite.data.catalog import BUNDLED
from selfie_lite.data.datasets import ImageDataset, ImageFiles, load_dataset
from selfie_lite.data.importing import dataset_writer
from selfie_lite.errors import SelfieLiteError, require_choice
from selfie_lite.loss import masked_patch_logits
from selfie_lite.machine import environment
from selfie_lite.patches import patchify, sample_masks
from selfie_lite.selfie import Selfie, take
from selfie_lite.training.batches import Batches
from selfie_lite.training.device import compiles, make_accelerator, prepare_model
from selfie_lite.training.loop import train_step
from selfie_lite.training.optimizer import make_optimizer
from selfie_lite.training.pretrain import PretrainConfig, make_forward, make_model


def bench_pretraining(
    config: PretrainConfig,
    parts: Iterable[str],
    rounds: int = 5,
    seconds: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Measure `config`'s training step; gives what `selfie-lite bench pretrain` writes as JSON.

    Args:
        config: geometry, network and batch size; images are the bundled ones, whatever its `data`.
        parts: of PARTS.
        rounds: how often each candidate is timed.
        seconds: about how long each timing takes; at least one step.
        say: told what is being measured.

    Raises:
        SelfieLiteError: for an unknown part, or fewer than two rounds.
    """
    for part in parts:
        require_choice("part", part, PARTS)
    if rounds < 2 or not seconds > 0:
        raise SelfieLiteError(f"a spread takes 2 rounds or more and some seconds, not {rounds} and {seconds}.")
    result = {"environment": environment(), "threads": torch.get_num_threads(), "rounds": rounds}
    result |= {"config": config.to_dict()}
    turns = partial(in_turns, rounds=rounds, seconds=seconds, say=say)
    with torch._dynamo.config.patch(recompile_limit=64):  # one program, many geometries
        for part in [part for part in PARTS if part in parts]:
            say(part)
            result[part] = PARTS[part](config, turns)
    return result


# What is timed


class Step:
    """A training step of `config` that can be called again and again, as `pretrain` makes it.

    plain_input: images come from one loader process through PIL transforms, as float32, instead of lying on the
    device as uint8.
    """

    def __init__(self, config: PretrainConfig, fused: bool | None = None, plain_input: bool = False):
        self.config = config
        self.accelerator = make_accelerator(config)
        model = prepare_model(make_model(config), config, self.accelerator)
        optimizer = make_optimizer(model, config, fused)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if compiles(config, self.accelerator.device):
            self.model.compile()
        dataset = bundled_images(config)
        if plain_input:
            self.batches = plain_batches(dataset, config, self.accelerator.device)
            self.forward = partial(_forward_floats, config, model.num_masked)
        else:
            self.batches = Batches(dataset, torch.arange(len(dataset)), config, self.accelerator).start(0)
            self.forward = make_forward(config, model.num_masked)
        self.count = 0

    def __call__(self) -> None:
        images, labels = next(self.batches)
        train_step(self.config, self.accelerator, self.model, self.optimizer, self.forward, images, labels, 0)


def _forward_floats(config, num_masked, model, images, labels, generator):
    """As `make_forward`'s, for images that the loader has cropped and normalised already."""
    out = model(images, *sample_masks(len(images), config.grid, num_masked, generator, images.device))
    return {"loss": out.loss, "accuracy": out.accuracy}


def bundled_images(config: PretrainConfig) -> ImageDataset:
    """Enough uint8 images of the size asked for: the sample up to 64 pixels, else the photos, over and over."""
    source = load_dataset("sample" if config.image_size <= 64 else "photos").images
    if source.shape[-1] != config.image_size:
        resized = torch.nn.functional.interpolate(source.float(), (config.image_size,) * 2, mode="bilinear")
        source = resized.round().to(torch.uint8)
    count = max(config.batch_size, min(4000, 2**28 // source[0].numel()))
    images = source[torch.arange(count) % len(source)]
    return ImageDataset("bundled", "train", images, torch.zeros(count, dtype=torch.int64), ["any"])


class PlainImages(torch.utils.data.Dataset):
    """An image at a time through torchvision's transforms on PIL images, as most training scripts do it."""

    def __init__(self, images: torch.Tensor, padding: int):
        size = images.shape[-1]
        crop = v2.RandomCrop(size, padding or None) if size <= 64 else v2.RandomResizedCrop(size)
        to_float = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.images, self.transform = images, v2.Compose([crop, v2.RandomHorizontalFlip(), *to_float])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(v2.functional.to_pil_image(self.images[index])), 0


def plain_batches(dataset: ImageDataset, config: PretrainConfig, device) -> Iterator[tuple]:
    loader = DataLoader(
        PlainImages(dataset.images, config.padding), config.batch_size, shuffle=True, num_workers=1, drop_last=True,
        persistent_workers=True,
    )  # fmt: skip
    while True:
        for images, labels in loader:
            yield images.to(device), labels.to(device)


# The parts


def ladder(config: PretrainConfig) -> dict[str, dict]:
    """Each rung adds one thing to the rung before it; the one named default is what `pretrain` does here."""
    slow = dict(precision="fp32", channels_last=False, compile="no")
    config = config.updated(steps=10**9)
    accelerator = make_accelerator(config)
    bf16 = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    rungs = {"plain": dict(config=config.updated(**slow), fused=False, plain_input=True)}
    rungs["images resident as uint8"] = dict(config=config.updated(**slow), fused=False)
    rungs["+ channels-last"] = dict(config=config.updated(**slow | {"channels_last": True}), fused=False)
    if bf16 == "bf16":
        rungs["+ bfloat16"] = dict(config=config.updated(precision=bf16, compile="no"), fused=False)
    rungs["+ fused optimiser"] = dict(config=config.updated(precision=bf16, compile="no"), fused=True)
    rungs["+ torch.compile"] = dict(config=config.updated(precision=bf16, compile="yes"), fused=True)
    rungs["default"] = dict(config=config)
    return rungs


def bench_ladder(config: PretrainConfig, turns: Callable) -> list[dict]:
    steps, failed = {}, {}
    for name, rung in ladder(config).items():
        step = Step(**rung)
        try:
            step()
            steps[name] = step
        except Exception as error:  # torch.compile without a compiler, say: a rung that cannot be climbed here
            if name != "+ torch.compile":
                raise
            failed[name] = str(error).strip().splitlines()[0]
    rows = speeds(turns(steps), config.batch_size, "plain")
    memory = {name: peak_memory(rung) for name, rung in ladder(config).items() if name in rows}
    done = [{"rung": name, **row, "peak_memory_mb": memory[name]} for name, row in rows.items()]
    return done + [{"rung": name, "failed": why} for name, why in failed.items()]


def peak_memory(rung: dict) -> int:
    """MB at the highest in three steps, in a process of their own: on the GPU what torch has allocated there, on the
    CPU all that the process holds, Python and libraries included."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_three_steps, rung).result()


def _three_steps(rung: dict) -> int:
    step = Step(**rung)
    for _ in range(3):
        step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    status = Path("/proc/self/status")  # Linux: getrusage would count what the parent process held
    if status.is_file():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def bench_ceiling(config: PretrainConfig, turns: Callable) -> dict:
    """The whole step against forward and backward of P alone, on patches that lie on the device already."""
    step = Step(config.updated(steps=10**9))
    patches = patchify(normalize(next(step.batches)[0]), config.grid)
    network = prepare_model(make_model(config), config, step.accelerator).patch_network.train()
    if compiles(config, step.accelerator.device):
        network.compile()

    def p_alone():
        with step.accelerator.autocast():
            features = network(patches)
        features.sum().backward()
        network.zero_grad(set_to_none=True)

    times = turns({"P alone": p_alone, "step": step})
    rows = speeds(times, config.batch_size, "P alone")
    return {
        "images_per_second": {name: row["images_per_second"] for name, row in rows.items()},
        "step_over_ceiling": rows["step"]["times_P alone"],
        "goal": 0.8 if step.accelerator.device.type == "cpu" else 0.9,
        "multiply_adds_step_over_P": round(count_operations(step)[0] / count_operations(p_alone)[0], 3),
    }


class CountBytes(TorchDispatchMode):
    """Bytes that the operations read and write, each by itself: what moves if nothing is fused and no cache helps."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in function.name():
            for x in torch.utils._pytree.tree_leaves((args, kwargs, out)):
                if isinstance(x, torch.Tensor):
                    self.bytes += x.numel() * x.element_size()
        return out


def count_operations(call: Callable) -> tuple[int, int]:
    """Floating-point operations (two a multiply-add) and bytes of one call, run without compilation."""
    with FlopCounterMode(display=False) as flops, torch.compiler.set_stance("force_eager"):
        call()
    with CountBytes() as counted, torch.compiler.set_stance("force_eager"):
        call()
    return flops.get_total_flops(), counted.bytes


def bench_roofline(config: PretrainConfig, turns: Callable) -> dict:
    """Operations and bytes of the step over this device's rates: no step can take less time than the operations do."""
    step = Step(config.updated(steps=10**9))
    step()
    operations, moved = count_operations(step)
    device = step.accelerator.device
    dtype = torch.bfloat16 if step.accelerator.mixed_precision == "bf16" else torch.float32
    side, length = (8192, 2**28) if device.type == "cuda" else (2048, 2**26)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(length, dtype=torch.float32, device=device).fill_(1)
    target = torch.empty_like(source)
    times = turns({"step": step, "matrix product": lambda: a @ b, "copy": lambda: target.copy_(source)})
    matrix_rate = [2 * side**3 / t for t in times["matrix product"]]
    copy_rate = [2 * 4 * length / t for t in times["copy"]]
    least = {
        "by_operations": [operations / rate for rate in matrix_rate],
        "by_bytes": [moved / rate for rate in copy_rate],
    }
    return {
        "operations": operations,
        "bytes_unfused": moved,
        "operations_per_byte": round(operations / moved, 2),
        "precision": str(dtype).removeprefix("torch."),
        "matrix_operations_per_second": spread(matrix_rate),
        "copy_bytes_per_second": spread(copy_rate),
        "step_seconds": spread(times["step"]),
        "seconds_by_operations": spread(least["by_operations"]),
        "seconds_by_bytes_unfused": spread(least["by_bytes"]),
        "operations_part_of_step": spread(o / t for o, t in zip(least["by_operations"], times["step"], strict=True)),
        "bytes_part_of_step": spread(o / t for o, t in zip(least["by_bytes"], times["step"], strict=True)),
    }


def bench_locations(config: PretrainConfig, turns: Callable) -> dict:
    """All M hidden locations in one pass, against a pass for each of them."""
    step = Step(config.updated(steps=10**9))
    model: Selfie = step.accelerator.unwrap_model(step.model).train()
    images = next(step.batches)[0]
    visible, masked = sample_masks(len(images), config.grid, model.num_masked, torch.Generator(), images.device)

    def at_once():
        with step.accelerator.autocast():
            loss = step.model(images, visible, masked).loss
        loss.backward()

    def one_at_a_time():
        for i in range(model.num_masked):
            with step.accelerator.autocast():
                loss = loss_of_location(model, images, visible, masked, i) / model.num_masked
            loss.backward()

    rows = speeds(turns({"one at a time": one_at_a_time, "at once": at_once}), len(images), "one at a time")
    return {"masked": model.num_masked, "rows": rows}


def loss_of_location(model: Selfie, images, visible, masked, i: int) -> torch.Tensor:
    """Forward pass for the i-th hidden location of each image alone."""
    features = model.patch_network(patchify(model.prepare(images), model.grid))
    query, _ = model.make_queries(features, visible, masked[:, i : i + 1])  # (B, 1, D)
    candidates = take(features, masked)  # (B, M, D)
    logits = masked_patch_logits(query.expand_as(candidates), candidates)[:, 0]  # (B, M)
    return torch.nn.functional.cross_entropy(logits, torch.full((len(images),), i, device=images.device))


def bench_growth(config: PretrainConfig, turns: Callable) -> list[dict]:
    """Images/s and memory as batch size, M and N grow, one at a time."""
    batch = config.batch_size
    changes = {f"batch {b}": dict(batch_size=b) for b in (max(1, batch // 4), max(1, batch // 2), batch, 2 * batch)}
    largest = config.grid.count // 2
    masked = sorted({1, largest, *(m for m in (2, 4, 12, 16) if m < largest)})
    changes |= {f"M {m}": dict(num_masked=m) for m in masked}
    sides = sorted({max(2, config.grid.side // 2), config.grid.side, config.grid.side * 3 // 2})
    changes |= {f"N {side**2}": dict(image_size=side * config.patch_size, num_masked=0) for side in sides}
    configs = {name: config.updated(steps=10**9, **change) for name, change in changes.items()}
    base = f"batch {batch}"
    counts = {name: c.batch_size for name, c in configs.items()}
    rows = speeds(turns({name: Step(c) for name, c in configs.items()}), counts, base)
    return [
        {"changed": name, **row, "peak_memory_mb": peak_memory(dict(config=configs[name]))}
        for name, row in rows.items()
    ]


def bench_processes(config: PretrainConfig, turns: Callable) -> list[dict]:
    """`torchrun … pretrain` with 1, 2, … processes sharing the batch: one a GPU, or on the CPU the cores shared out."""
    rounds, say = turns.keywords["rounds"], turns.keywords["say"]
    most = torch.cuda.device_count() or torch.get_num_threads()
    counts = [n for n in (1, 2, 4, 8) if n <= most and config.batch_size % n == 0]
    speed: dict[int, list[float]] = {n: [] for n in counts}
    with tempfile.TemporaryDirectory() as folder:
        images = bundled_images(config)
        with (
            patch_environment(SELFIE_LITE_DATA=folder),
            dataset_writer("bundled", config.image_size, ["any"], 0) as add,
        ):
            add("train", [(images.images.numpy(), images.labels.numpy())])
        for number in range(rounds):
            say(f"  round {number + 1} of {rounds}")
            for n in counts:
                speed[n].append(images_per_second_of(config, n, Path(folder)))
    return [
        {"processes": n, "images_per_second": spread(speed[n]),
         "times_one_process": spread(a / b for a, b in zip(speed[n], speed[1], strict=True))}
        for n in counts
    ]  # fmt: skip


def images_per_second_of(config: PretrainConfig, processes: int, folder: Path) -> float:
    """Median of the lines that a short run of its own logs, but for the first."""
    short = config.updated(name="short", data="bundled", steps=12, log_every=2, eval_every=0, save_every=12, held_out=1)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "config.json").write_text(json.dumps(short.to_dict()))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "-m", "selfie_lite", "pretrain", "--config", "config.json"]  # fmt: skip
        threads = str(max(1, torch.get_num_threads() // processes))
        with patch_environment(SELFIE_LITE_DATA=str(folder), OMP_NUM_THREADS=threads):
            done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            raise SelfieLiteError(f"{processes} processes did not run: {done.stderr.strip()[-500:]}")
        lines = map(json.loads, (Path(place) / "runs/short/metrics.jsonl").read_text().splitlines())
        return statistics.median([line["images_per_second"] for line in lines if "images_per_second" in line][1:])


def bench_input(config: PretrainConfig, turns: Callable) -> dict:
    """What reading JPEG files alone can do, by worker processes, beside what the step takes."""
    step = Step(config.updated(steps=10**9))
    paths = sorted(str(path) for path in (BUNDLED / "photos").glob("*.jpg"))
    cores = multiprocessing.cpu_count()
    candidates, counts = {"step": step}, {"step": config.batch_size}
    for workers in [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]:
        name, count = f"{workers} workers", 16 * workers * config.batch_size  # all read within the time taken
        labels = torch.zeros(count, dtype=torch.int64)
        files = ImageFiles("photos", "train", (paths * count)[:count], labels, ["any"], config.image_size)
        loader = DataLoader(files, config.batch_size, num_workers=workers, persistent_workers=True)
        candidates[name], counts[name] = partial(_exhaust, loader), count
    rows = speeds(turns(candidates), counts, "step")
    enough = [name for name, row in rows.items() if name != "step" and row["times_step"]["median"] >= 1]
    return {
        "files": "the ten bundled photos, JPEG, 224×224 pixels, over and over",
        "rows": rows,
        "fewest_that_keep_up_with_the_step": enough[0] if enough else f"more than {cores} workers",
    }


def _exhaust(loader: DataLoader) -> None:
    for _ in loader:
        pass


PARTS = {
    "ladder": bench_ladder,
    "ceiling": bench_ceiling,
    "roofline": bench_roofline,
    "locations": bench_locations,
    "growth": bench_growth,
    "processes": bench_processes,
    "input": bench_input,
}


def tables(result: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    """What `bench_pretraining` gave, as (title, columns, rows) of text for people."""
    made = []

    def add(title: str, rows: list[dict]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        made.append(
            (title, [c.replace("_", " ") for c in columns], [[_text(row.get(c)) for c in columns] for row in rows])
        )

    def named(rows: dict[str, dict]) -> list[dict]:
        return [{"": name, **row} for name, row in rows.items()]

    if part := result.get("ladder"):
        add("Speed ladder", part)
    if part := result.get("ceiling"):
        add(f"Ceiling (goal {part['goal']:.2f})", [
            *named({name: {"images_per_second": row} for name, row in part["images_per_second"].items()}),
            {"": "step / P alone", "images_per_second": part["step_over_ceiling"]},
        ])  # fmt: skip
    if part := result.get("roofline"):
        add("Roofline", [{"": name.replace("_", " "), "value": value} for name, value in part.items()])
    if part := result.get("locations"):
        add(f"All {part['masked']} hidden locations", named(part["rows"]))
    for name in ("growth", "processes"):
        if part := result.get(name):
            add(name.capitalize(), part)
    if part := result.get("input"):
        add(f"Reading files; enough: {part['fewest_that_keep_up_with_the_step']}", named(part["rows"]))
    return made


def _text(value) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
