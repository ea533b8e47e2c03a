"""Manifests: what ships is read as it is, and written again to the same bytes."""

from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import bundle_folders, read_manifest, write_manifest

SHIPPED = ("base", "att1", "att2", "judge", "judge200", "matcher")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_bundle_written_again_has_the_same_bytes(name: str, tmp_path: Path) -> None:
    source = bundle_folders()[name]
    for path in source.iterdir():
        if path.name != "bundle.json":
            (tmp_path / path.name).symlink_to(path)
    manifest = read_manifest(source).manifest
    assert write_manifest(tmp_path, manifest.document) == manifest
    assert (tmp_path / "bundle.json").read_bytes() == (source / "bundle.json").read_bytes()
    write_manifest(tmp_path, {**manifest.document, "of another version": [1]})
    assert read_manifest(tmp_path).manifest.told("of another version") == [1]
