"""Convolutional networks in small: one of each kind of wiring that known architectures have."""

import torch
from torch import nn
from torch.nn import functional as F


def norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Head(nn.Module):
    """Global pooling and a classifier."""

    def __init__(self, channels: int, classes: int = 5) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3)) if x.dim() == 4 else x)


class BasicBlock(nn.Module):
    """ResNet (arXiv:1512.03385): the sum ties the channels of all blocks of a stage."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn1 = norm_relu(outputs)
        self.conv2 = conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else shortcut

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))) + self.shortcut(x))


def resnet() -> nn.Module:
    blocks = [BasicBlock(8, 8), BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 16)]
    return nn.Sequential(conv(3, 8), norm_relu(8), nn.MaxPool2d(2), *blocks, Head(16))


class DenseBlock(nn.Module):
    """DenseNet (arXiv:1608.06993): every layer reads all before it, put beside each other."""

    def __init__(self, inputs: int, growth: int, count: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm_relu(inputs + growth * index) for index in range(count))
        self.convs = nn.ModuleList(conv(inputs + growth * index, growth) for index in range(count))

    def forward(self, x):
        for norm, layer in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, layer(norm(x))], 1)
        return x


def densenet() -> nn.Module:
    transition = nn.Sequential(norm_relu(20), conv(20, 10, 1), nn.AvgPool2d(2))
    return nn.Sequential(
        conv(3, 8), DenseBlock(8, 4, 3), transition, DenseBlock(10, 6, 2), norm_relu(22), Head(22)
    )


class Inception(nn.Module):
    """GoogLeNet (arXiv:1409.4842): branches side by side, one of them pooled."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = conv(inputs, 4, 1)
        self.three = nn.Sequential(conv(inputs, 4, 1), nn.ReLU(), conv(4, 6))
        self.five = nn.Sequential(conv(inputs, 2, 1), nn.ReLU(), conv(2, 4, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, 4, 1))

    def forward(self, x):
        return F.relu(torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1))


def inception() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.ReLU(), Inception(8), Inception(18), Head(18))


def shuffle(x, groups: int):
    count, channels, height, width = x.shape
    x = x.reshape(count, groups, channels // groups, height, width).transpose(1, 2)
    return x.reshape(count, channels, height, width)


class ShuffleUnit(nn.Module):
    """ShuffleNet (arXiv:1707.01083): grouped convolution, shuffle, depthwise convolution, sum."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.squeeze = conv(channels, channels, 1, groups=groups)
        self.norm = norm_relu(channels)
        self.depthwise = conv(channels, channels, groups=channels)
        self.expand = conv(channels, channels, 1, groups=groups)

    def forward(self, x):
        y = shuffle(self.norm(self.squeeze(x)), self.groups)
        return F.relu(x + self.expand(self.depthwise(y)))


def shufflenet() -> nn.Module:
    return nn.Sequential(conv(3, 24), nn.ReLU(), ShuffleUnit(24, 3), ShuffleUnit(24, 3), Head(24))


class ShuffleUnit2(nn.Module):
    """ShuffleNetV2 (arXiv:1807.11164): half of the channels pass, then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1),
            norm_relu(half),
            conv(half, half, groups=half),
            conv(half, half, 1),
            norm_relu(half),
        )

    def forward(self, x):
        kept, changed = x.chunk(2, 1)
        return shuffle(torch.cat([kept, self.branch(changed)], 1), 2)


def shufflenet2() -> nn.Module:
    return nn.Sequential(
        conv(3, 16), nn.ReLU(), *[ShuffleUnit2(16) for _ in range(3)], conv(16, 12, 1), Head(12)
    )


class Fire(nn.Module):
    """SqueezeNet (arXiv:1602.07360)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = conv(inputs, squeezed, 1)
        self.small = conv(squeezed, expanded, 1)
        self.large = conv(squeezed, expanded)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.small(x)), F.relu(self.large(x))], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), Fire(8, 4, 6), nn.MaxPool2d(2), Fire(12, 4, 8), conv(16, 5, 1), Pooled()
    )


class Pooled(nn.Module):
    def forward(self, x):
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def vgg() -> nn.Module:
    """VGG (arXiv:1409.1556): channels times places become the inputs of the first neurons."""
    features = [conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 12), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(12 * 16, 20), nn.ReLU(), nn.Linear(20, 5))


class InvertedResidual(nn.Module):
    """MobileNetV2 (arXiv:1801.04381)."""

    def __init__(self, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.adds = channels == outputs
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            conv(hidden, hidden, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


def mobilenet() -> nn.Module:
    blocks = [InvertedResidual(8, 16, 8), InvertedResidual(8, 24, 12), InvertedResidual(12, 24, 12)]
    return nn.Sequential(conv(3, 8, stride=2), norm_relu(8), *blocks, conv(12, 20, 1), nn.ReLU(), Head(20))


class ConvNeXtBlock(nn.Module):
    """ConvNeXt (arXiv:2201.03545): normalization over channels, then two matrix products."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = conv(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, stride=2), ConvNeXtBlock(8), conv(8, 12, stride=2), ConvNeXtBlock(12), Head(12)
    )


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def efficientnet() -> nn.Module:
    hidden = nn.Sequential(
        conv(8, 16, 1), nn.SiLU(), conv(16, 16, groups=16), nn.SiLU(), SqueezeExcite(16, 4)
    )
    return nn.Sequential(conv(3, 8), nn.SiLU(), hidden, conv(16, 8, 1), Head(8))


class UNet(nn.Module):
    """U-Net (arXiv:1505.04597): the way down is put beside the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 8), norm_relu(8))
        self.down = nn.Sequential(nn.MaxPool2d(2), conv(8, 12), norm_relu(12))
        self.bottom = nn.Sequential(nn.MaxPool2d(2), conv(12, 16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.join = nn.Sequential(conv(24, 10), nn.ReLU())
        self.grow = nn.Upsample(scale_factor=2)
        self.last = nn.Sequential(conv(18, 8), nn.LeakyReLU(), conv(8, 2, 1))

    def forward(self, x):
        first = self.first(x)
        second = self.down(first)
        third = self.join(torch.cat([self.up(self.bottom(second)), second], 1))
        return self.last(torch.cat([self.grow(third), first], 1))


def unet() -> nn.Module:
    return UNet()


class GroupedBlock(nn.Module):
    """RegNet and ResNeXt (arXiv:2003.13678): the middle convolution has groups."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(channels, channels, 1),
            norm_relu(channels),
            conv(channels, channels, groups=groups),
            norm_relu(channels),
            conv(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return F.relu(x + self.layers(x))


def regnet() -> nn.Module:
    return nn.Sequential(conv(3, 16, stride=2), GroupedBlock(16, 4), GroupedBlock(16, 2), Head(16))


def groupnorm() -> nn.Module:
    """Statistics over groups of channels: groups can leave, single channels cannot."""
    first = [conv(3, 16), nn.GroupNorm(4, 16), nn.ReLU()]
    return nn.Sequential(*first, conv(16, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), Head(8))


class PixelShuffle(nn.Module):
    """Super-resolution by sub-pixels (arXiv:1609.05158)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8), nn.PReLU(8), conv(8, 24))
        self.last = conv(6, 3)

    def forward(self, x):
        return self.last(F.pixel_shuffle(self.body(x), 2))


def pixelshuffle() -> nn.Module:
    return PixelShuffle()


class Transposed(nn.Module):
    """Transposed convolution in groups, and channels split in unequal parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, 12)
        self.up = nn.ConvTranspose2d(12, 16, 2, stride=2, groups=4)
        self.small, self.large = conv(6, 4), conv(10, 4)

    def forward(self, x):
        small, large = self.up(F.relu(self.first(x))).split([6, 10], 1)
        return self.small(small) + self.large(F.pad(large, (1, 1, 1, 1))[:, :, 1:-1, 1:-1])


def transposed() -> nn.Module:
    return Transposed()
