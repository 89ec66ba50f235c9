"""The backbones: what `keras.applications` builds, what pixels its ImageNet weights expect, how its blocks are named.

Several Keras constructors put a normalisation of their own in front of the network. It is left out where Keras allows
that (`include_preprocessing`), so that one layer, "normalise" of `ductal.training.network`, does this work for all.
Only EfficientNet (V1) keeps layers of its own, which `ductal.training.network` sets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

SMALLEST_PX = 32  # Keras takes no less; all have a stride of 32, so that the last map is 1 x 1 there
Rgb = tuple[float, float, float]

# Channel means of ImageNet in RGB order that VGG was trained with (Simonyan & Zisserman 2014), 0-255.
VGG_MEAN_RGB: Rgb = (123.68, 116.779, 103.939)
# Channel means and standard deviations of ImageNet (RGB, 0-255) as torchvision and most others use them.
_IMAGENET_MEAN: Rgb = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD: Rgb = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class Family:
    """Backbones that share preprocessing and the naming of their layers.

    Attributes:
        name: as in its paper.
        members: name in `keras.applications` -> (Keras's published weights without the top, their MD5 or SHA-256).
        folder: the address that those files are under.
        mean, std: RGB, 0-255; ImageNet weights expect (pixels - mean) / std.
        blocks: how blocks are called, as a regular expression of the beginning of their layers' names after
            `prefix`. Which blocks a member has, its layers tell.
        prefix: regular expression of what all layers' names begin with.
        options: further arguments of the constructors.
        expects_bgr: the published first kernel is for BGR.
        normalises_itself: the constructor adds a normalisation that cannot be left out.
    """

    name: str
    members: dict[str, tuple[str, str]]
    folder: str
    mean: Rgb
    std: Rgb
    blocks: str
    prefix: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    expects_bgr: bool = False
    normalises_itself: bool = False

    def block_of(self, layer: str) -> str | None:
        """The block that the layer of this name belongs to; None for one of no block."""
        found = re.match(rf"{self.prefix}({self.blocks})(?![0-9])", layer)
        return found.group(1) if found else None

    def may_have(self, part: str) -> bool:
        """Whether `part` is called like a block, or a part of one; whether it is there, only the layers tell."""
        return re.match(rf"({self.blocks})(?![0-9])", part) is not None

    @property
    def block_names(self) -> str:
        """How blocks are called, for a message: "stem, blockN, top"."""
        return ", ".join(dict.fromkeys(self.blocks.replace(r"\d+", "N").split("|")))

    def layers_of(self, part: str, layers: list[str]) -> list[str]:
        """Those of `layers` that are in the block `part`, or whose names begin with it ("block5a", "conv5_block16").

        A number in a name ends where its digits end: "expanded_conv_1" does not begin "expanded_conv_10".
        """
        begins = re.compile(rf"{self.prefix}{re.escape(part)}(?![0-9])")
        in_block = [layer for layer in layers if self.block_of(layer) == part]
        return in_block or [layer for layer in layers if begins.match(layer)]


def _kernels(name: str, file_hash: str) -> tuple[str, str]:
    return f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", file_hash


_NO_PREPROCESSING = {"include_preprocessing": False}
_VGG = Family(
    name="VGG",
    members={
        "VGG16": _kernels("vgg16/vgg16", "6d6bbae143d832006294945121d1f1fc"),
        "VGG19": _kernels("vgg19/vgg19", "253f8cb515780f3b799900260a226db6"),
    },
    folder=_STORAGE,
    mean=VGG_MEAN_RGB,
    std=(1.0, 1.0, 1.0),
    blocks=r"block\d+",
    expects_bgr=True,
)
_EFFICIENTNET = Family(
    name="EfficientNet",
    members={
        "EfficientNetB0": ("efficientnetb0_notop.h5", "50bc09e76180e00e4465e1a485ddc09d"),
        "EfficientNetB1": ("efficientnetb1_notop.h5", "74c4e6b3e1f6a1eea24c589628592432"),
        "EfficientNetB2": ("efficientnetb2_notop.h5", "111f8e2ac8aa800a7a99e3239f7bfb39"),
        "EfficientNetB3": ("efficientnetb3_notop.h5", "af6d107764bb5b1abb91932881670226"),
        "EfficientNetB4": ("efficientnetb4_notop.h5", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
        "EfficientNetB5": ("efficientnetb5_notop.h5", "38879255a25d3c92d5e44e04ae6cec6f"),
        "EfficientNetB6": ("efficientnetb6_notop.h5", "9ecce42647a20130c1f39a5d4cb75743"),
        "EfficientNetB7": ("efficientnetb7_notop.h5", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    },
    folder="https://storage.googleapis.com/keras-applications",
    mean=_IMAGENET_MEAN,
    std=IMAGENET_STD,
    blocks=r"stem|block\d+|top",
    normalises_itself=True,
)
_V2_FOLDER = f"{_STORAGE}/efficientnet_v2"
_EFFICIENTNET_V2_B = Family(
    name="EfficientNetV2",
    members={
        "EfficientNetV2B0": ("efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff"),
        "EfficientNetV2B1": ("efficientnetv2-b1_notop.h5", "0e80663031ca32d657f9caa404b6ec37"),
        "EfficientNetV2B2": ("efficientnetv2-b2_notop.h5", "1dfe2e7a5d45b6632553a8961ea609eb"),
        "EfficientNetV2B3": ("efficientnetv2-b3_notop.h5", "f6abf7b5849ac99a89b50dd3fd532856"),
    },
    folder=_V2_FOLDER,
    mean=_IMAGENET_MEAN,
    std=IMAGENET_STD,
    blocks=_EFFICIENTNET.blocks,
    options=_NO_PREPROCESSING,
)
_EFFICIENTNET_V2 = Family(
    name="EfficientNetV2",
    members={
        "EfficientNetV2S": ("efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"),
        "EfficientNetV2M": ("efficientnetv2-m_notop.h5", "1b8dc055df72dde80d614482840fe342"),
        "EfficientNetV2L": ("efficientnetv2-l_notop.h5", "b0b66b5c863aef5b46e8608fe1711615"),
    },
    folder=_V2_FOLDER,
    mean=(128.0, 128.0, 128.0),
    std=(128.0, 128.0, 128.0),
    blocks=_EFFICIENTNET.blocks,
    options=_NO_PREPROCESSING,
)
_DENSENET = Family(
    name="DenseNet",
    members={
        "DenseNet121": _kernels("densenet121", "30ee3e1110167f948a6b9946edeeb738"),
        "DenseNet169": _kernels("densenet169", "b8c4d4c20dd625c148057b9ff1c1176b"),
        "DenseNet201": _kernels("densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    },
    folder=f"{_STORAGE}/densenet",
    mean=_IMAGENET_MEAN,
    std=IMAGENET_STD,
    blocks=r"conv\d+|pool\d+|bn",
)
_RESNET_V2 = Family(
    name="ResNetV2",
    members={
        "ResNet50V2": _kernels("resnet50v2", "fac2f116257151a9d068a22e544a4917"),
        "ResNet101V2": _kernels("resnet101v2", "c0ed64b8031c3730f411d2eb4eea35b5"),
    },
    folder=f"{_STORAGE}/resnet",
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    blocks=r"conv\d+|post",
)
_CONVNEXT = Family(
    name="ConvNeXt",
    members={
        "ConvNeXtTiny": (
            "convnext_tiny_notop.h5",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
        "ConvNeXtSmall": (
            "convnext_small_notop.h5",
            "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
        ),
        "ConvNeXtBase": (
            "convnext_base_notop.h5",
            "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
        ),
    },
    folder=f"{_STORAGE}/convnext",
    mean=_IMAGENET_MEAN,
    std=IMAGENET_STD,
    blocks=r"stem|stage_\d+|downsampling_block_\d+",
    prefix=r"convnext_[a-z]+_",
    options=_NO_PREPROCESSING,
)
_MOBILENET_V3 = Family(
    name="MobileNetV3",
    members={
        "MobileNetV3Small": (
            "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
            "d3e8ec802a04aa4fc771ee12a9a9b836",
        ),
        "MobileNetV3Large": (
            "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
            "07fb09a5933dd0c8eaafa16978110389",
        ),
    },
    folder=f"{_STORAGE}/mobilenet_v3",
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    blocks=r"expanded_conv_\d+|expanded_conv|conv_\d+|conv",
    options=_NO_PREPROCESSING,
)
FAMILIES = (
    _VGG, _EFFICIENTNET, _EFFICIENTNET_V2_B, _EFFICIENTNET_V2, _DENSENET, _RESNET_V2, _CONVNEXT, _MOBILENET_V3,
)  # fmt: skip
BACKBONES = tuple(name for family in FAMILIES for name in family.members)
# Those that are one chain of layers, so that a frozen part ends in one tensor: their first layer, and their number.
CHAINS = {"VGG16": ("block1_conv1", 18), "VGG19": ("block1_conv1", 21)}


@dataclass(frozen=True)
class Published:
    """A weights file that Keras publishes: its name, address and MD5 or SHA-256 (hex)."""

    file: str
    address: str
    hash: str


def family_of(backbone: str) -> Family:
    """The family of one of `BACKBONES`."""
    return next(family for family in FAMILIES if backbone in family.members)


def published_weights(backbone: str) -> Published:
    """The ImageNet weights of `backbone` without its top, as Keras publishes them."""
    family = family_of(backbone)
    path, digest = family.members[backbone]
    return Published(PurePosixPath(path).name, f"{family.folder}/{path}", digest)


def build_base(backbone: str, **settings: Any) -> Any:
    """The Keras model of `backbone` without its top, from random weights, without preprocessing where that can be.

    Args:
        backbone: one of `BACKBONES`.
        settings: of the constructor in `keras.applications`: `input_tensor`, or `input_shape` and `pooling`.
    """
    import keras

    make = getattr(keras.applications, backbone)
    return make(include_top=False, weights=None, **family_of(backbone).options, **settings)
