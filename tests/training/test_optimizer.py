"""Schedule and groups of parameters."""

from runs import workplace  # noqa: F401
from tiny import config

from selfie_lite.training.optimizer import learning_rate_at, make_optimizer
from selfie_lite.training.pretrain import make_model


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
