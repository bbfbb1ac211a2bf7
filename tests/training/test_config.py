"""Settings: every field is checked."""

import json
import math
from pathlib import Path

import pytest
from runs import workplace  # noqa: F401
from tiny import config

from selfie_lite import SelfieLiteError
from selfie_lite.training.pretrain import PRESETS, PretrainConfig, pretrain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(arch="resnet51"), "unknown arch 'resnet51'. Did you mean 'resnet50'"),
        (dict(optimizer="sdg"), "unknown optimizer 'sdg'. Did you mean 'sgd'"),
        (dict(steps=0), "steps must be 1 or more, but is 0"),
        (dict(steps="many"), "steps takes a int, for instance 100, but is 'many'"),
        (dict(learning_rate=float("nan")), "learning_rate must be above 0"),
        (dict(image_size=18), "cannot be cut into patches of 4"),
        (dict(num_masked=16), "num_masked must lie between 0 and 15"),
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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", "fast", "learning_rate takes a float"),
        ("learning_rate", math.inf, "learning_rate must be above 0 and finite"),
        ("weight_decay", math.nan, "weight_decay must be 0 or more and finite"),
        ("clip_norm", -1.0, "clip_norm must be above 0"),
        ("steps", True, "steps takes a int"),
        ("steps", 2.5, "steps takes a int"),
        ("workers", 5000, "workers must be 0 or more and up to 1024"),
        ("channels_last", 1, "channels_last takes a bool"),
        ("resume", "latest", "Choose from: newest|Did you mean 'newest'"),
        ("data", "", "data is empty"),
        ("name", "a\nb", "name must be a plain folder name"),
        ("name", "x" * 300, "length of name, in bytes, must be 1 or more and up to 200, but is 300"),
        ("held_out", 0, "held_out must be 1 or more"),
        ("num_masked", -1, "num_masked must be 0 or more"),
        ("dropout", math.nan, "dropout must be 0 or more and below 1"),
        ("padding", 16, "padding must lie between 0 and 15"),
    ],
)
def test_every_field_has_its_range(field, value, message):
    with pytest.raises(SelfieLiteError, match=message):
        config(**{field: value})


def test_numbers_may_be_written_as_people_write_them():
    written = config(learning_rate="1e-3", steps=1e3, weight_decay=0)
    assert (written.learning_rate, written.steps, written.weight_decay) == (0.001, 1000, 0.0)
    assert [type(x) for x in (written.learning_rate, written.steps, written.weight_decay)] == [float, int, float]
