"""Exports real networks with their BatchNormalization kept: the models of `coverage.py`.

    python zoo.py FOLDER [NAME ...] [--exporters script dynamo] [--reparameterized]

needs `pip install torch==2.13.0 torchvision timm pytorchcv onnx onnxscript`. Architectures come from timm,
pytorchcv and `networks.py`, weights from a seed; nothing is fetched. A network is named after its library and
architecture; each PyTorch exporter writes NAME_EXPORTER.onnx. `--reparameterized` writes what timm's own
`reparameterize_model` makes of the same weights, in FOLDER/reparameterized, where it has anything to do.

Statistics are those of normal noise, moved at random; gammas and betas are random, a tenth of the gammas
negative. Images are small: how many normalizations there are does not depend on it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
import zlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from networks import Ecapa, PointNet, UNet3d, dcgan, mlp
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EXPORTERS = ("script", "dynamo")
REPARAMETERIZED = "reparameterized"
_BATCH = 8  # of the noise that statistics are taken from
_TURNED = 0.1  # share of negative gammas
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Network:
    """A network of the zoo.

    Attributes:
        build: makes it, with random weights.
        shape: of one input, without the batch.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def _timm(name: str, size: int = 64) -> tuple[str, Network]:
    def build() -> nn.Module:
        return import_module("timm").create_model(name, pretrained=False)

    return f"timm_{name}", Network(build, (3, size, size))


def _pytorchcv(name: str, size: int = 224) -> tuple[str, Network]:
    def build() -> nn.Module:
        return import_module("pytorchcv.model_provider").get_model(name, pretrained=False)

    return f"pytorchcv_{name}", Network(build, (3, size, size))


ZOO: dict[str, Network] = dict([
    ("unet3d", Network(UNet3d, (1, 16, 16, 16))),
    ("dcgan", Network(dcgan, (32, 1, 1))),
    ("pointnet", Network(PointNet, (3, 64))),
    ("mlp", Network(mlp, (24,))),
    ("ecapa", Network(Ecapa, (40, 50))),
    _timm("resnet50"),
    _timm("densenet121"),
    _timm("inception_v3", 96),
    _timm("mobilenetv3_small_100"),
    _timm("regnety_002"),
    _timm("ghostnet_100"),
    _timm("levit_128s", 224),
    _timm("repvgg_a0"),
    _timm("mobileone_s0"),
    _timm("fastvit_t8"),
    _timm("repvit_m0_9"),
    _timm("repghostnet_050"),
    _pytorchcv("preresnet18"),
    _pytorchcv("shufflenet_g3_wd4"),
    _pytorchcv("shufflenetv2_wd2"),
    _timm("dla34"),
    _timm("efficientnet_lite0"),
    _timm("efficientvit_b0"),
    _timm("efficientvit_m0", 224),
    _timm("mobilenetv4_conv_small"),
    _timm("mobilevit_xxs"),
    _timm("hgnetv2_b0"),
    _timm("ese_vovnet19b_slim_dw"),
    _timm("hrnet_w18_small"),
    _timm("xception41p"),
    _timm("dpn48b"),
    _timm("res2net50_48w_2s"),
    _timm("resnest14d"),
    _timm("skresnet18"),
    _timm("cs3darknet_focus_s"),
    _timm("selecsls42b"),
    _timm("tiny_vit_5m_224", 224),
    _timm("visformer_tiny", 224),
    _timm("coatnet_bn_0_rw_224", 224),
    _timm("starnet_s1"),
    _timm("ghostnetv3_050"),
    _timm("inception_next_atto"),
    _timm("mambaout_femto"),
    _timm("shvit_s1"),
    _timm("efficientformerv2_s0", 224),
    _timm("botnet26t_256", 256),
    _pytorchcv("condensenet74_c4_g4"),
    _pytorchcv("peleenet"),
    _pytorchcv("igcv3_wd4"),
    _pytorchcv("menet108_8x1_g3"),
    _pytorchcv("ibn_resnet50"),
    _pytorchcv("ibn_densenet121"),
    _pytorchcv("bam_resnet18"),
    _pytorchcv("diracnet18v2"),
    _pytorchcv("fractalnet_cifar10", 32),
    _pytorchcv("pyramidnet110_a48_cifar10", 32),
    _pytorchcv("wrn16_10_cifar10", 32),
    _pytorchcv("sparsenet121"),
    _pytorchcv("hardnet39ds"),
    _pytorchcv("sepreresnet18"),
    _pytorchcv("erfnet_cityscapes", 128),
    _pytorchcv("segnet_cityscapes", 64),
    _pytorchcv("centernet_resnet18_coco", 128),
])  # fmt: skip


def randomize(network: nn.Module, noise: torch.Tensor) -> None:
    """Draw every parameter that initialization left constant, and take statistics from noise.

    Args:
        network: it is changed, and left in evaluation mode.
        noise: what the statistics are taken from, float32[batch, ...].
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _NORMALIZATIONS)]
    gammas = {id(layer.weight) for layer in layers}
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                value, drawn = parameter.flatten()[0].item(), torch.rand_like(parameter)
                if id(parameter) in gammas:
                    turned = torch.where(torch.rand_like(parameter) < _TURNED, -1.0, 1.0)
                    parameter.copy_((0.7 + 0.6 * drawn) * turned)
                elif value == 0:
                    parameter.copy_(0.4 * drawn - 0.2)
                else:  # a layer scale: as initialized, some hide their branch
                    parameter.copy_((0.7 + 0.6 * drawn) * max(value, 0.3))
        for layer in layers:
            layer.momentum = 1.0
        network.train()(noise)
        for layer in layers:
            mean, var = layer.running_mean, layer.running_var
            var.clamp_(min=0.01 * float(var.mean()) + 1e-3)  # a channel that noise never lights up
            mean += 0.3 * var.sqrt() * torch.randn_like(mean)
            var *= 0.5 + torch.rand_like(var)
    network.eval()


def export(network: nn.Module, example: torch.Tensor, exporter: str, path: Path) -> None:
    """Write a network as it is, nothing folded."""
    names = {"input_names": ["input"], "output_names": ["output"]}
    with torch.no_grad():
        if exporter == "script":
            torch.onnx.export(
                network, (example,), path, dynamo=False, opset_version=17, **names,
                do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,
            )  # fmt: skip
        else:
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=18, **names, optimize=False, verbose=False
            )
            program.save(path)


def write(name: str, folder: Path, exporters: Iterable[str], *, reparameterized: bool) -> None:
    """Write one network by each exporter."""
    torch.manual_seed(zlib.crc32(name.encode()))
    entry = ZOO[name]
    network = entry.build()
    randomize(network, torch.randn(_BATCH, *entry.shape))
    variants = {folder: network}
    if reparameterized:
        shorter = import_module("timm.utils.model").reparameterize_model(copy.deepcopy(network))
        if len(list(shorter.modules())) < len(list(network.modules())):
            variants[folder / REPARAMETERIZED] = shorter.eval()
            (folder / REPARAMETERIZED).mkdir(exist_ok=True)
    example = torch.randn(1, *entry.shape)
    for exporter in exporters:
        for place, variant in variants.items():
            path = place / f"{name}_{exporter}.onnx"
            try:
                export(variant, example, exporter, path)
            except Exception as error:  # noqa: BLE001  # each exporter fails in its own ways
                path.unlink(missing_ok=True)
                lines = str(error).strip().splitlines() or [""]
                print(f"{path.stem}: not exported: {type(error).__name__}: {lines[0][:120]}", file=sys.stderr)
            else:
                print(path, flush=True)


def main() -> None:
    """Export what the command line names."""
    parser = argparse.ArgumentParser(description="Export real networks, BatchNormalization kept.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ZOO)}; all by default")
    parser.add_argument("--exporters", nargs="+", choices=EXPORTERS, default=EXPORTERS)
    parser.add_argument("--reparameterized", action="store_true")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ZOO]
    if unknown:
        parser.error(f"not in the zoo: {', '.join(unknown)}")
    warnings.simplefilter("ignore")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or ZOO:
        write(name, arguments.folder, arguments.exporters, reparameterized=arguments.reparameterized)


if __name__ == "__main__":
    main()
