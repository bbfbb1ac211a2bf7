"""P, against torchvision's own ResNet with the same weights."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from selfie_lite import PatchNetwork, SelfieLiteError


def network(arch, stem):
    """P in evaluation mode, with running statistics that are not just 0 and 1."""
    torch.manual_seed(0)
    p = PatchNetwork(arch, stem).eval()
    for name, buffer in p.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.2)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return p


def truncated_resnet(p):
    """torchvision's ResNet with P's weights loaded by name, cut off behind the third block."""
    resnet = getattr(torchvision.models, p.arch)(weights=None)
    if p.stem == "small":
        resnet.conv1, resnet.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    missing, unexpected = resnet.load_state_dict(p.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"layer4", "fc"}
    resnet.layer4, resnet.fc = nn.Identity(), nn.Identity()
    return resnet.eval()


@pytest.mark.parametrize("arch, dim", [("resnet50", 1024), ("resnet18", 256)])
@pytest.mark.parametrize("stem, size", [("imagenet", 32), ("small", 8)])
def test_equals_torchvision_with_the_same_weights(arch, dim, stem, size):
    p = network(arch, stem)
    patches = torch.randn(2, 3, 3, size, size)
    with torch.no_grad():
        features = p(patches)
        expected = truncated_resnet(p)(patches.flatten(0, 1))
    assert p.dim == dim and features.shape == (2, 3, dim)
    torch.testing.assert_close(features, expected.view(2, 3, dim), rtol=1e-4, atol=1e-5)
    assert features.std(dim=(0, 1)).gt(0.001).float().mean() > 0.9  # the features tell patches apart


@pytest.mark.parametrize("stem, size", [("imagenet", 32), ("small", 8)])
def test_a_patch_alone_gives_the_same_features(stem, size):
    p = network("resnet18", stem)
    patches = torch.randn(2, 4, 3, size, size)
    with torch.no_grad():
        together = p(patches)
        for image in range(2):
            for location in range(4):
                alone = p(patches[image, location][None, None])[0, 0]
                torch.testing.assert_close(alone, together[image, location], rtol=1e-4, atol=1e-5)


def test_number_of_parameters():
    p = PatchNetwork("resnet50", "imagenet")
    assert sum(parameter.numel() for parameter in p.parameters()) == 8_543_296
    small = PatchNetwork("resnet50", "small")
    assert sum(parameter.numel() for parameter in small.parameters()) == 8_543_296 - 3 * 64 * (7 * 7 - 3 * 3)


@pytest.mark.parametrize("arch", ["resnet50", "resnet18"])
@pytest.mark.parametrize("stem, size, before, after", [("small", 8, 8, 2), ("imagenet", 32, 8, 2)])
def test_sizes_of_the_maps(arch, stem, size, before, after):
    p = network(arch, stem)
    seen = {}
    p.layer1.register_forward_pre_hook(lambda module, inputs: seen.update(before=inputs[0].shape))
    p.layer3.register_forward_hook(lambda module, inputs, output: seen.update(after=output))
    patches = torch.randn(1, 2, 3, size, size)
    with torch.no_grad():
        features = p(patches)
        maps = p.feature_maps(patches[0])
    assert seen["before"] == (2, 64, before, before)
    assert maps.shape == (2, p.dim, after, after)
    assert torch.equal(seen["after"], maps)
    average = (maps[:, :, 0, 0] + maps[:, :, 0, 1] + maps[:, :, 1, 0] + maps[:, :, 1, 1]) / 4
    torch.testing.assert_close(features[0], average)


def test_small_stem_by_hand():
    p = network("resnet18", "small")
    patches = torch.randn(2, 3, 8, 8)
    x = F.conv2d(patches, p.conv1.weight, padding=1)
    x = F.batch_norm(x, p.bn1.running_mean, p.bn1.running_var, p.bn1.weight, p.bn1.bias)
    expected = p.layer3(p.layer2(p.layer1(F.relu(x))))
    torch.testing.assert_close(p.feature_maps(patches), expected)
    # Drawn as torchvision draws it: variance 2 over the 3·3·64 connections of a pixel
    assert p.conv1.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


def test_any_leading_dimensions():
    p = network("resnet18", "small")
    patches = torch.randn(2, 2, 2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(p(patches), p(patches.flatten(0, 1)).view(2, 2, 2, 256))
        torch.testing.assert_close(p(patches[0, 0]), p(patches[:1, 0])[0])


def test_one_step_reaches_every_parameter():
    p = PatchNetwork("resnet18", "small")
    (p(torch.randn(2, 4, 3, 8, 8)) * torch.randn(256)).sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in p.parameters())


@pytest.mark.parametrize("shape", [(2, 4, 1, 8, 8), (2, 4, 8, 8, 3), (3, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(SelfieLiteError, match="P takes RGB patches of shape"):
        PatchNetwork("resnet18")(torch.zeros(shape))


@pytest.mark.parametrize(
    "names, message",
    [
        ({"arch": "resnet52"}, "unknown arch 'resnet52'. Did you mean 'resnet50'"),
        ({"stem": "imagnet"}, "unknown stem 'imagnet'. Did you mean 'imagenet'"),
        ({"stem": "xyz"}, "unknown stem 'xyz'. Choose from: small, imagenet"),
    ],
)
def test_unknown_names(names, message):
    with pytest.raises(SelfieLiteError, match=message):
        PatchNetwork(**names)
