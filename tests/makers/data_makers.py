"""What the tests of `data build` have in common: small pictures with captions, and a look into the shards."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attngan_deploy.media.shards import Sample, iter_samples
from attngan_deploy.train.data.build import BuildOptions, build
from attngan_deploy.train.data.sources import CUB_FILES
from attngan_deploy.train.data.split import SplitRule

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 255, 255)
EVERYTHING = SplitRule(test_classes=0)


def picture(path: Path, colour: tuple[int, ...] = RED, size: tuple[int, int] = (40, 30), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def described(path: Path, captions: str = "a red bird\na small bird\n", **options: Any) -> Path:
    picture(path, **options)
    path.with_suffix(".txt").write_text(captions, encoding="utf-8")
    return path


def birds(root: Path, classes: int = 4, each: int = 2) -> Path:
    """A folder source in which everything is usable."""
    for number in range(classes):
        for place in range(each):
            described(root / f"kind{number}/bird{place}.jpg", f"bird number {number}\nseen {place} times\n")
    return root


def run(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    options.setdefault("size", 16)
    report: dict[str, Any] = build(BuildOptions(source, output, **options))
    return report


def samples(output: Path, split: str = "train") -> dict[str, Sample]:
    return {sample.name: sample for sample in iter_samples(output / f"{split}.tar")}


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("WEBP", "RGB")
        return np.asarray(image).astype(int)


def close_to(values: np.ndarray[Any, Any], colour: tuple[int, ...]) -> bool:
    return bool(np.abs(values - np.array(colour)).max() <= 12)  # WebP is lossy


def make_cub(root: Path, species: int = 4, each: int = 2) -> Path:
    images: list[str] = []
    labels: list[str] = []
    boxes: list[str] = []
    for label in range(1, species + 1):
        for place in range(each):
            number, name = len(images) + 1, f"{label:03}.Bird_{label}/Bird_{label}_{place}"
            picture(root / "images" / f"{name}.jpg", size=(60, 50))
            captions = root / "text" / f"{name}.txt"
            captions.parent.mkdir(parents=True, exist_ok=True)
            captions.write_text(f"a bird of kind{label}\n" * 10)
            images.append(f"{number} {name}.jpg")
            labels.append(f"{number} {label}")
            boxes.append(f"{number} 20.0 15.0 16.0 10.0")
    classes = [f"{label} {label:03}.Bird_{label}" for label in range(1, species + 1)]
    for name, lines in zip(CUB_FILES, (images, labels, boxes, classes), strict=True):
        (root / name).write_text("\n".join(lines) + "\n")
    return root
