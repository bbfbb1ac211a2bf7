"""P, the patch network: the first three residual blocks of a ResNet, then average pooling (paper, section 2.1)."""

from functools import partial

import torchvision
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from selfie_lite.errors import SelfieLiteError, require_choice, require_type

DIMS = {"resnet50": 1024, "resnet18": 256}  # channels that leave the third residual block
STEMS = ("small", "imagenet")
NORMS = {"batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, 32)}  # each takes the number of channels


def make_resnet(arch: str, stem: str, num_classes: int = 1000, norm: str = "batch") -> torchvision.models.ResNet:
    """torchvision's ResNet with fresh weights, its first layers as `stem` and `norm` say; see `PatchNetwork`."""
    require_choice("arch", arch, DIMS)
    require_choice("stem", stem, STEMS)
    require_choice("norm", norm, NORMS)
    make = getattr(torchvision.models, arch)
    resnet = make(weights=None, num_classes=num_classes, norm_layer=NORMS[norm])
    if stem == "small":
        resnet.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        resnet.maxpool = nn.Identity()
        nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    return resnet


def norm_of(weights: dict[str, Tensor]) -> str:
    """The normalisation of a ResNet, a key of NORMS, by its state dict: batch normalisation keeps statistics."""
    return "batch" if any(".running_" in name for name in weights) else "group"


class PatchNetwork(nn.Module, PyTorchModelHubMixin, library_name="selfie-lite", license="mit", tags=["selfie"]):
    """P turns every patch, on its own, into one feature vector.

    Built from torchvision's ResNet; parameters keep its names (`conv1`, `bn1`, `layer1` to `layer3`), so weights
    load into torchvision and timm as they are. `save_pretrained(folder)` and `PatchNetwork.from_pretrained(folder)` are
    those of huggingface_hub.

    Args:
        arch: "resnet50", the paper's, D = 1024, or "resnet18", D = 256, which a laptop's CPU trains in a minute.
        stem: "small", a 3×3 convolution with stride 1 and no max-pooling, for 8×8 patches; "imagenet", ResNet's own
            7×7 convolution with stride 2 and max-pooling, for 32×32 patches.
        norm: "batch", ResNet's own batch normalisation, or "group": 32 groups of channels, of one patch alone.

    Raises:
        SelfieLiteError: for an unknown `arch`, `stem` or `norm`.
    """

    def __init__(self, arch: str = "resnet50", stem: str = "small", norm: str = "batch"):
        super().__init__()
        resnet = make_resnet(arch, stem, norm=norm)
        self.arch, self.stem, self.norm, self.dim = arch, stem, norm, DIMS[arch]
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3

    def feature_maps(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised float → (B, D, h, w): what the third block gives, before pooling."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward(self, patches: Tensor) -> Tensor:
        """All patches of a batch in one pass.

        Args:
            patches: (B, N, 3, S, S) normalised float of any precision; any number of leading dimensions will do.

        Returns:
            features (B, N, D), in P's own precision.

        Raises:
            SelfieLiteError: if the patches do not have three channels, or are not float.
        """
        require_type("patches", patches, Tensor, " Make it one: torch.as_tensor(patches).")
        if patches.ndim < 4 or patches.shape[-3] != 3:
            raise SelfieLiteError(
                f"P takes RGB patches of shape (batch, patches, 3, size, size), but got {tuple(patches.shape)}."
            )
        if not patches.is_floating_point():
            raise SelfieLiteError(
                f"P takes normalised float patches, but these are {patches.dtype}: use normalize first."
            )
        if patches.device != self.conv1.weight.device:
            raise SelfieLiteError(
                f"the patches are on {patches.device}, P on {self.conv1.weight.device}: move one with .to(device)."
            )
        patches = patches.to(self.conv1.weight.dtype)  # a half or double P takes what normalize gives
        maps = self.feature_maps(patches.flatten(0, -4))  # (B·N, D, h, w)
        return maps.mean(dim=(2, 3)).unflatten(0, patches.shape[:-3])
