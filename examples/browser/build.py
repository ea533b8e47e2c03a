"""Assemble the browser page as a static folder: the page, onnxruntime-web, and bundles.

Any static host can serve the folder; the page fetches nothing from anywhere else.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attngan_deploy
from attngan_deploy.bundles.bundle import DEFAULT_MODEL, Bundle, open_bundle
from attngan_deploy.bundles.manifest import MANIFEST
from attngan_deploy.errors import BundleError, MissingExtraError, OutputError, T2IError
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.system.files import atomic_folder, sha256_of

HERE = Path(__file__).resolve().parent
PAGE = (
    *("index.html", "style.css", "icon.svg", "app.js", "worker.js", "model.js", "store.js", "service-worker.js"),
    *("errors.js", "tokenizer.js", "noise.js", "attention.js", "png.js", "offline.js"),
)
SHARED = ("command.js", "history.js", "made.css")  # with the page of `t2i serve`
SERVED = Path(attngan_deploy.__file__).parent / "serve" / "page"
PACKAGE = HERE / "node_modules" / "onnxruntime-web"
# Name in the package to name in the site: not every static host knows that .mjs is JavaScript.
WASM = {
    "ort.wasm.bundle.min.mjs": "ort.wasm.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
WEBGPU = {
    "ort.webgpu.bundle.min.mjs": "ort.webgpu.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
FILES = "files.js"
PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE | re.ASCII)


def build_site(site: Path, models: Sequence[str | Path], webgpu: bool = False) -> dict[str, int]:
    """Write the folder `site`; an older one is replaced.

    Args:
        models: names or folders of text-to-image bundles.
        webgpu: add the engine for graphics chips, 27 MB.

    Returns:
        Bytes of every file, by its path in the site.

    Raises:
        BundleError: a bundle is missing, damaged, of another kind or without words, or two have the same name.
        MissingExtraError: onnxruntime-web is not installed.
        OutputError: `site` holds other things, or can't be written.
    """
    bundles = [_text_to_image(model) for model in models]
    names = [bundle.name for bundle in bundles]
    if len(set(names)) < len(names):
        raise BundleError("two models have the same name", found=", ".join(names))
    engine = WASM | WEBGPU if webgpu else WASM
    if not all((PACKAGE / "dist" / file).is_file() for file in engine):
        raise MissingExtraError(
            "onnxruntime-web is not installed", expected=str(PACKAGE), next_step=f"npm ci --prefix {HERE}"
        )
    try:
        return _write(site, bundles, engine)
    except OSError as error:
        raise OutputError(
            f"{site} can't be written: {error.strerror}", next_step="another -o, or free some space there"
        ) from error


def _write(site: Path, bundles: Sequence[Bundle], engine: Mapping[str, str]) -> dict[str, int]:
    with atomic_folder(site, marker=FILES) as part:
        for file in PAGE:
            _copy(HERE / file, part / file)
        for file in SHARED:
            _copy(SERVED / file, part / file)
        for file, name in engine.items():
            _copy(PACKAGE / "dist" / file, part / "engine" / name)
        for bundle in bundles:
            for file in _needed(bundle):
                _copy(bundle.folder / file, part / "models" / bundle.name / file)
        order = [part / "models" / bundle.name for bundle in bundles]  # the page opens with the first
        paths = sorted(
            (path for path in part.rglob("*") if path.is_file()),
            key=lambda path: (order.index(path.parent) if path.parent in order else -1, path),
        )
        table = {
            path.relative_to(part).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in paths
        }
        text = json.dumps(table, indent=2)
        (part / FILES).write_text(
            f"/** Every file of this site but this one; written by build.py. */\nexport const FILES = {text};\n"
        )
    return {path: entry["bytes"] for path, entry in table.items()}


def _text_to_image(model: str | Path) -> Bundle:
    bundle = open_bundle(model)
    if not PLAIN_NAME.fullmatch(bundle.name):
        raise BundleError(f"the name of model {model} can't be part of an address", found=repr(bundle.name))
    try:
        Tokenizer.load(bundle.vocabulary)
    except BundleError as error:
        raise BundleError(f"model {model} can't be used: {error}", next_step="export the bundle again") from error
    return bundle


def _needed(bundle: Bundle) -> list[str]:
    graphs = [bundle.graph(key).file for key in ("text_encoder", "generator")]
    return [MANIFEST, bundle.vocabulary.name, *graphs]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def main() -> int:
    """Read the command line, build, and print what was built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write, e.g. site/")
    parser.add_argument("--models", nargs="+", default=[DEFAULT_MODEL], help="names or folders of bundles")
    parser.add_argument("--webgpu", action="store_true", help="add the engine for graphics chips (27 MB)")
    options = parser.parse_args()
    try:
        files = build_site(options.out, options.models, options.webgpu)
    except (T2IError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(files) + 1} files, {sum(files.values()) / 1e6:.1f} MB")
    print(f"Look at it with: python -m http.server --directory {options.out} 8000", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
