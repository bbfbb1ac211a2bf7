"""Pretraining: it learns, a run is written whole, and stopping it anywhere changes nothing."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import config, make_data

from selfie_lite import Selfie, SelfieLiteError, cli, load_dataset
from selfie_lite.training.batches import Batches
from selfie_lite.training.checkpoint import CheckpointError, find_checkpoint, list_checkpoints
from selfie_lite.training.config import RUNS
from selfie_lite.training.device import make_accelerator
from selfie_lite.training.optimizer import learning_rate_at, make_optimizer
from selfie_lite.training.pretrain import PRESETS, PretrainConfig, make_model, pretrain, split_held_out
from selfie_lite.training.randomness import batch_indices
from selfie_lite.training.run import NonFiniteLossError

HERE = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_LITE_DATA", str(tmp_path / "cache"))
    make_data(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def weights_of(folder, which="newest"):
    return load_file(find_checkpoint(Path(folder) / "checkpoint", which) / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def stop_after(step, number=signal.SIGTERM):
    """An on_log that sends this process a signal once `step` is logged."""

    def on_log(lines):
        if lines[-1]["step"] == step:
            os.kill(os.getpid(), number)

    return on_log


def test_a_run_is_written_whole_and_can_be_repeated_from_its_config():
    folder = pretrain(config())
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoint",
        "tensorboard",
        "README.md",
        "curve.png",
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if "held_out_accuracy" in line] == [5, 10, 12]
    assert {"loss", "accuracy", "learning_rate", "images_per_second"} < lines[0].keys()
    assert [int(path.name) for path in list_checkpoints(folder / "checkpoint")] == [4, 8, 12]
    assert "After 12 of 12 steps of 8 images: held-out accuracy" in (folder / "README.md").read_text()
    assert list((folder / "tensorboard").glob("events*"))
    saved = json.loads((folder / "config.json").read_text())
    again = pretrain(PretrainConfig.from_dict(saved | {"name": "again"}))
    assert_same(weights_of(folder), weights_of(again))


def test_it_learns_what_there_is_to_learn():
    folder = pretrain(config(steps=60, eval_every=60, save_every=60, batch_size=16, padding=0))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_accuracy"] > 0.45 and last["held_out_loss"] < math.log(4) - 0.2


@pytest.mark.parametrize("step", [3, 6, 9])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_resumed_is_bit_for_bit_the_same(step, number):
    straight = pretrain(config(name="straight"))
    handler = signal.getsignal(number)
    stopped = pretrain(config(), on_log=stop_after(step, number))
    assert signal.getsignal(number) is handler
    (newest,) = list_checkpoints(stopped / "checkpoint")[-1:]
    assert int(newest.name) == step + 1, "it saves and leaves at the next step"
    pretrain(config(resume="newest"))
    assert_same(weights_of(straight), weights_of(stopped))
    optimizers = [torch.load(find_checkpoint(f / "checkpoint") / "state.pt")["optimizer"] for f in (straight, stopped)]
    for one, other in zip(*(optimizer["state"].values() for optimizer in optimizers), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    without_speed = [
        [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in open(f / "metrics.jsonl")]
        for f in (straight, stopped)
    ]
    assert without_speed[0] == without_speed[1]


def test_stopped_before_the_first_line_of_metrics_it_still_saves_and_goes_on(monkeypatch):
    settings = dict(log_every=50, eval_every=0)
    straight = weights_of(pretrain(config(name="straight", **settings)))
    forward = Selfie.forward

    def forward_and_signal(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Selfie, "forward", forward_and_signal)
        folder = pretrain(config(**settings))
    assert [int(path.name) for path in list_checkpoints(folder / "checkpoint")] == [1]
    pretrain(config(resume="newest", **settings))
    assert_same(straight, weights_of(folder))


def test_an_earlier_checkpoint_leads_to_the_same_end():
    straight = weights_of(pretrain(config()))
    pretrain(config(resume="8"))
    assert_same(straight, weights_of("runs/tiny"))


def test_evaluation_and_logging_do_not_change_the_training():
    often, seldom = (
        pretrain(config(eval_every=1, log_every=1)),
        pretrain(config(name="seldom", eval_every=0, log_every=7)),
    )
    assert_same(weights_of(often), weights_of(seldom))


def test_killed_twenty_times_in_a_row_and_resumed_is_bit_for_bit_the_same(tmp_path):
    settings = dict(steps=150, save_every=1, log_every=4, eval_every=50)
    straight = weights_of(pretrain(config(name="straight", **settings)))
    script = f"""
        import os, random, signal, sys, time
        sys.path.insert(0, {str(HERE)!r})
        import torch
        import torch.utils.tensorboard  # once, here, and not in every child
        from tiny import config
        import selfie_lite.workbook.figures
        from selfie_lite.training.checkpoint import list_checkpoints
        from selfie_lite.training.pretrain import pretrain
        torch.set_num_threads(1)
        settings = {settings!r}
        random.seed(0)
        kills = 0
        while True:
            found = list_checkpoints(config().folder / "checkpoint")
            child = os.fork()
            if child == 0:
                pretrain(config(resume="newest" if found else "", **settings))
                os._exit(0)
            if kills < 20:
                time.sleep(random.uniform(0.1, 0.9))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                kills += 1
            elif kills >= 20 or status != 0:
                sys.exit(f"{{kills}} kills" if status == 0 and kills < 20 else status)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(straight, weights_of("runs/tiny"))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_only_offered():
    folder = pretrain(config())
    file = folder / "checkpoint" / "00000012" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="00000012 is damaged .model.safetensors is not what.*--resume 8"):
        pretrain(config(resume="newest"))
    with pytest.raises(CheckpointError, match="no checkpoint of step '7' .* there are: 4, 8, 12"):
        pretrain(config(resume="7"))
    pretrain(config(resume="8"))
    assert find_checkpoint(folder / "checkpoint").name == "00000012"


def test_another_configuration_is_refused_with_the_fields_that_differ():
    pretrain(config())
    with pytest.raises(
        CheckpointError, match="learning_rate is 0.001 there and 0.002 here; seed is 3 there and 4 here"
    ):
        pretrain(config(resume="newest", seed=4, learning_rate=0.002))
    with pytest.raises(SelfieLiteError, match="already holds a run.*--resume newest"):
        pretrain(config())
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        pretrain(config(name="other", resume="newest"))


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(monkeypatch):
    forward = Selfie.forward
    calls = []

    def breaks_at_step_8(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        if self.training:
            calls.append(1)
            out.loss = out.loss * (float("nan") if len(calls) == 8 else 1.0)
        return out

    monkeypatch.setattr(Selfie, "forward", breaks_at_step_8)
    with pytest.raises(NonFiniteLossError, match="at step 8, with learning rate 0.0005.*00000004. Try a lower"):
        pretrain(config())
    assert all(value.isfinite().all() for value in weights_of("runs/tiny").values())


def test_out_of_memory_says_which_batch_size_to_try(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Selfie, "forward", full)
    with pytest.raises(SelfieLiteError, match="at batch_size 8. Try --batch-size 4"):
        pretrain(config())


def test_a_full_disk_loses_no_earlier_checkpoint(monkeypatch):
    from selfie_lite.training import checkpoint

    save = checkpoint.save_file

    def full_at_step_8(tensors, path):
        if len(list_checkpoints(path.parent.parent)) == 1:
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full_at_step_8)
    with pytest.raises(SelfieLiteError, match="full.* The checkpoint of step 8 was not written.*00000004. Make room"):
        pretrain(config())
    assert [path.name for path in Path("runs/tiny/checkpoint").iterdir()] == ["00000004"]
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(arch="resnet51"), "unknown arch 'resnet51'. Did you mean 'resnet50'"),
        (dict(optimizer="sdg"), "unknown optimizer 'sdg'. Did you mean 'sgd'"),
        (dict(steps=0), "steps must be 1 or more, but is 0"),
        (dict(steps="many"), "steps takes a int, for instance 100, but is 'many'"),
        (dict(learning_rate=float("nan")), "learning_rate must be above 0"),
        (dict(image_size=18), "cannot be cut into patches of 4"),
        (dict(num_masked=16), "num_masked must lie between 1 and 15"),
        (dict(batch_size=64), "batch_size 64 is more than the 40 images"),
        (dict(held_out=48), "held_out 48 leaves nothing to train on: there are 48"),
        (dict(name="../x"), "name must be a plain folder name"),
        (dict(data="tinny"), "Did you mean 'tiny'"),
        (dict(image_size=32, patch_size=8), "stored at 16×16 pixels, but 32"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(SelfieLiteError, match=message):
        pretrain(config(**changes))
    assert not Path("runs").exists()


def test_config_goes_through_json_and_refuses_unknown_keys():
    for preset in PRESETS.values():
        assert PretrainConfig.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    with pytest.raises(SelfieLiteError, match="no setting 'batchsize'. Did you mean 'batch_size'"):
        PretrainConfig.from_dict({"batchsize": 3})


def test_every_epoch_is_a_permutation_and_the_held_out_images_stay_out():
    epochs = [torch.cat([batch_indices(20, 6, step, seed=1) for step in range(3 * e, 3 * e + 3)]) for e in range(3)]
    assert all(len(epoch.unique()) == 18 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    keep, aside = split_held_out(48, 8)
    assert sorted(keep.tolist() + aside.tolist()) == list(range(48)) and len(aside) == 8
    batches = Batches(load_dataset("tiny"), keep, config(), make_accelerator(config()))
    used = torch.cat([batches.indices(step) for step in range(10)])
    assert not set(used.tolist()) & set(aside.tolist())


def test_streamed_and_resident_images_give_the_same_training(tmp_path):
    from PIL import Image

    for i, image in enumerate(load_dataset("tiny").images):
        (tmp_path / "files").mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "files" / f"{i:03}.png")
    resident = pretrain(config())
    streamed = pretrain(config(name="streamed", data=str(tmp_path / "files"), workers=1))
    assert_same(weights_of(resident), weights_of(streamed))


def test_channels_last_agrees_with_channels_first():
    runs = [pretrain(config(name=str(last), channels_last=last, steps=1, log_every=1)) for last in (True, False)]
    first, second = (json.loads(open(run / "metrics.jsonl").readline())["loss"] for run in runs)
    assert first == pytest.approx(second, rel=1e-5)


def test_schedule_and_weight_decay_groups():
    c = config(steps=10, warmup_steps=4, learning_rate=1.0)
    rates = [learning_rate_at(step, c) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0 and rates[-1] < 0.1
    assert rates[4:] == sorted(rates[4:], reverse=True)
    model = make_model(c)
    decay, keep = make_optimizer(model, c).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    undecayed = {names[id(parameter)] for parameter in keep["params"]}
    assert (
        keep["weight_decay"] == 0
        and {"positions.location", "pool.summary_token", "patch_network.bn1.weight"} <= undecayed
    )
    assert all("norm" in n or "bn" in n or n.endswith("bias") or "." not in n or "token" in n or "positions" in n
               or "downsample.1" in n for n in undecayed)  # fmt: skip
    assert len(decay["params"]) + len(keep["params"]) == len(names)


def test_command_line(monkeypatch, capsys, tmp_path):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["selfie-lite", "pretrain", *words])
        try:
            cli.main()
        except SystemExit as ended:
            return ended.code
        return 0

    words = ["--data", "tiny", "--image-size", "16", "--patch-size", "4", "--steps", "2", "--batch-size", "8"]
    assert run(*words, "--held-out", "8", "--name", "a", "--no-channels-last") == 0
    assert "runs/a: README.md has the curve" in capsys.readouterr().out
    saved = json.loads(Path("runs/a/config.json").read_text())
    assert saved["steps"] == 2 and saved["channels_last"] is False and saved["arch"] == "resnet18"
    assert run("--config", "runs/a/config.json", "--name", "b") == 0
    assert_same(weights_of("runs/a"), weights_of("runs/b"))
    for mistake, message in {
        ("--preset", "cifar100"): "Did you mean 'cifar10'",
        ("--bath-size", "3"): "--batch-size",
        ("--steps", "many"): "not a valid integer",
        ("--config", "nowhere.json"): "cannot be read as settings",
        ("--name", "a", "--config", "runs/a/config.json"): "already holds a run",
    }.items():
        assert run(*mistake) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert message in said and "Traceback" not in said
    before = weights_of("runs/a")
    shutil.rmtree("runs/a/checkpoint/00000002")
    assert run("--name", "a", "--resume", "newest") == 2, "no checkpoint is left"
    assert "there is no checkpoint in runs/a/checkpoint" in " ".join(capsys.readouterr().err.split())
    assert run("--name", "b", "--resume", "newest") == 0, "the settings are the run's own"
    assert_same(before, weights_of("runs/b"))


def test_a_signal_in_another_thread_is_not_ours():
    """Outside the main thread (a notebook's executor, say) Python allows no handlers: training still works."""
    results = []
    thread = threading.Thread(target=lambda: results.append(pretrain(config(steps=2, save_every=2))))
    thread.start()
    thread.join()
    assert results == [RUNS / "tiny"]


TWO = """
    import sys, torch
    sys.path.insert(0, {here!r})
    from tiny import config
    from selfie_lite import load_dataset
    from selfie_lite.patches import sample_masks
    from selfie_lite.training.pretrain import make_model
    from selfie_lite.training.device import make_accelerator, prepare_model
    c = config(sync_batch_norm=True, dropout=0.0)
    accelerator = make_accelerator(c)
    model = prepare_model(make_model(c).double(), c, accelerator)
    wrapped = accelerator.prepare(model)
    images = model.prepare(load_dataset("tiny").images[:8]).double()  # so that only mathematics can differ
    visible, masked = sample_masks(8, model.grid, 4, torch.Generator().manual_seed(0))
    mine = [x.chunk(accelerator.num_processes)[accelerator.process_index] for x in (images, visible, masked)]
    loss = wrapped(*mine).loss
    accelerator.backward(loss)
    loss = accelerator.reduce(loss.detach(), "mean")
    if accelerator.is_main_process:
        result = {{"processes": accelerator.num_processes, "loss": loss, "buffers": dict(model.named_buffers())}}
        result["grads"] = {{name: p.grad for name, p in model.named_parameters()}}
        torch.save(result, sys.argv[1])
    accelerator.end_training()
"""


def launch(processes, *words):
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    command = [sys.executable, *start[: 0 if processes == 1 else None], *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path):
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO.format(here=str(HERE))))
    launch(1, tmp_path / "two.py", tmp_path / "1.pt")
    launch(2, tmp_path / "two.py", tmp_path / "2.pt")
    one, two = torch.load(tmp_path / "1.pt"), torch.load(tmp_path / "2.pt")
    assert (one["processes"], two["processes"]) == (1, 2)
    torch.testing.assert_close(one["loss"], two["loss"])
    for kind in ("grads", "buffers"):
        for name, value in one[kind].items():
            torch.testing.assert_close(two[kind][name], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_train_resume_exactly_and_write_once():
    words = [
        "-m",
        "selfie_lite",
        "pretrain",
        "--data",
        "tiny",
        "--image-size",
        "16",
        "--patch-size",
        "4",
        "--batch-size",
        "8",
    ]
    words += [
        "--held-out",
        "8",
        "--steps",
        "8",
        "--save-every",
        "4",
        "--log-every",
        "2",
        "--sync-batch-norm",
        "--precision",
        "fp32",
    ]
    launch(2, *words, "--name", "straight")
    lines = Path("runs/straight/metrics.jsonl").read_text().splitlines()
    assert len([line for line in lines if '"loss"' in line]) == 4, "only one process writes"
    launch(2, *words, "--name", "straight", "--resume", "4")
    resumed = weights_of("runs/straight")
    launch(2, *words, "--name", "again")
    assert_same(resumed, weights_of("runs/again"))


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.compile, bfloat16 and resident images there"
)
def test_on_a_gpu_it_learns_compiled_and_resident():
    folder = pretrain(config(steps=100, eval_every=100, save_every=100, batch_size=16, precision="auto"))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_accuracy"] > 0.4


def test_compiled_agrees_with_eager():
    first, second = (
        pretrain(config(name=name, compile=name, dropout=0.0, steps=3, optimizer="sgd")) for name in ("yes", "no")
    )
    compiled, eager = weights_of(first), weights_of(second)
    for key, value in eager.items():
        if value.is_floating_point():
            torch.testing.assert_close(compiled[key], value, rtol=1e-3, atol=1e-4)


def test_initial_length_is_that_of_u_and_of_every_location():
    for length in (0.5, 3.0):
        model = make_model(config(initial_length=length)).eval()
        lengths = model.positions().norm(dim=1)
        assert abs(lengths.mean() / length - 1) < 0.1
        u = model.pool(torch.randn(4, 12, 256, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(u.norm(dim=1), torch.full((4,), length), rtol=0.05, atol=0)
