"""Networks for `zoo.py` of kinds that the model libraries lack: as their papers have them, but narrower."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class UNet3d(nn.Module):
    """3-D U-Net (Cicek et al. 2016): Conv3d, BatchNorm3d, ReLU; MaxPool3d down, ConvTranspose3d up."""

    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        widths = [width << level for level in range(depth)]
        self.down = nn.ModuleList(
            nn.Sequential(*_conv3d(below, here), *_conv3d(here, here))
            for below, here in zip([1, *widths], widths, strict=False)
        )
        self.rise = nn.ModuleList(nn.ConvTranspose3d(2 * here, here, 2, 2) for here in widths[:-1])
        self.up = nn.ModuleList(nn.Sequential(*_conv3d(2 * here, here)) for here in widths[:-1])
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Conv3d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Two logits for each voxel of `x`, float32[N, 1, D, H, W] with sizes that four divides."""
        skipped = []
        for block in self.down[:-1]:
            x = block(x)
            skipped.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for rise, block, skip in zip(reversed(self.rise), reversed(self.up), reversed(skipped), strict=True):
            x = block(torch.cat([skip, rise(x)], 1))
        return self.head(x)


def _conv3d(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv3d(c_in, c_out, 3, padding=1), nn.BatchNorm3d(c_out), nn.ReLU()


def dcgan(noise: int = 32, width: int = 16) -> nn.Module:
    """Generator of DCGAN (Radford et al. 2015), from float32[N, noise, 1, 1] to images of 64 x 64."""
    widths = [width << level for level in (3, 2, 1, 0)]
    layers: list[nn.Module] = [nn.ConvTranspose2d(noise, widths[0], 4, bias=False), nn.BatchNorm2d(widths[0])]
    for above, below in pairwise(widths):
        layers += [nn.ReLU(), nn.ConvTranspose2d(above, below, 4, 2, 1, bias=False), nn.BatchNorm2d(below)]
    return nn.Sequential(*layers, nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


class _Align(nn.Module):
    """PointNet's T-Net: a square matrix computed from all points, near the identity."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.points = nn.Sequential(*_conv1d(size, width), *_conv1d(width, 4 * width))
        self.head = nn.Sequential(*_linear(4 * width, width), nn.Linear(width, size * size))

    def forward(self, x: Tensor) -> Tensor:
        turned = self.head(self.points(x).amax(2)).view(-1, self.size, self.size)
        return turned + torch.eye(self.size)


class PointNet(nn.Module):
    """PointNet's classifier (Qi et al. 2017): Conv1d of one tap, two T-Nets, a maximum, Linear."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.align, self.align_features = _Align(3, width), _Align(width, width)
        self.first = nn.Sequential(*_conv1d(3, width))
        self.second = nn.Sequential(
            *_conv1d(width, 2 * width), nn.Conv1d(2 * width, 8 * width, 1), nn.BatchNorm1d(8 * width)
        )
        self.head = nn.Sequential(*_linear(8 * width, 4 * width), nn.Dropout(0.3), nn.Linear(4 * width, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Ten logits of the points `x`, float32[N, 3, points]."""
        x = self.first(torch.bmm(self.align(x), x))
        x = self.second(torch.bmm(self.align_features(x), x))
        return self.head(x.amax(2))


def _conv1d(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(c_in, c_out, 1), nn.BatchNorm1d(c_out), nn.ReLU()


def _linear(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out), nn.ReLU()


def mlp(features: int = 24, width: int = 64) -> nn.Module:
    """A perceptron for tables: normalized at the input, then before and behind the activation by turns."""
    return nn.Sequential(
        nn.BatchNorm1d(features),
        *_linear(features, width),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.LeakyReLU(0.1),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.BatchNorm1d(width),
        nn.Dropout(0.2),
        nn.Linear(width, 3),
    )


class _Tdnn(nn.Sequential):
    """Conv1d, ReLU, BatchNorm1d: in this order."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, dilation: int = 1) -> None:
        conv = nn.Conv1d(c_in, c_out, kernel, dilation=dilation, padding=dilation * (kernel // 2))
        super().__init__(conv, nn.ReLU(), nn.BatchNorm1d(c_out))


class _SeRes2(nn.Module):
    def __init__(self, width: int, dilation: int, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.enter, self.leave = _Tdnn(width, width), _Tdnn(width, width)
        part = width // scale
        self.parts = nn.ModuleList(_Tdnn(part, part, 3, dilation) for _ in range(scale - 1))
        squeezed = width // 4
        self.excite = nn.Sequential(
            nn.Conv1d(width, squeezed, 1), nn.ReLU(), nn.Conv1d(squeezed, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.enter(x).chunk(self.scale, 1)
        done = [first]
        for index, (tdnn, part) in enumerate(zip(self.parts, rest, strict=True)):
            done.append(tdnn(part + done[-1] if index else part))
        y = self.leave(torch.cat(done, 1))
        return x + y * self.excite(y.mean(2, keepdim=True))


class Ecapa(nn.Module):
    """ECAPA-TDNN (Desplanques et al. 2020): dilated Res2 blocks, attentive statistics, an embedding."""

    def __init__(self, mels: int = 40, width: int = 64) -> None:
        super().__init__()
        self.first = _Tdnn(mels, width, 5)
        self.blocks = nn.ModuleList(_SeRes2(width, dilation) for dilation in (2, 3, 4))
        self.join = nn.Sequential(nn.Conv1d(3 * width, 3 * width, 1), nn.ReLU())
        self.attend = nn.Sequential(
            _Tdnn(9 * width, 32), nn.Tanh(), nn.Conv1d(32, 3 * width, 1), nn.Softmax(2)
        )
        self.head = nn.Sequential(nn.BatchNorm1d(6 * width), nn.Linear(6 * width, 48), nn.BatchNorm1d(48))

    def forward(self, x: Tensor) -> Tensor:
        """An embedding of the spectrogram `x`, float32[N, mels, frames]."""
        x = self.first(x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.join(torch.cat(outputs, 1))
        mean = x.mean(2, keepdim=True)
        spread = ((x - mean) ** 2).mean(2, keepdim=True).clamp(min=1e-4).sqrt()
        share = self.attend(torch.cat([x, mean.expand_as(x), spread.expand_as(x)], 1))
        mean = (share * x).sum(2)
        spread = ((share * x * x).sum(2) - mean * mean).clamp(min=1e-4).sqrt()
        return self.head(torch.cat([mean, spread], 1))
