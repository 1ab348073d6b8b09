"""static/chat/vendor: other people's code, as they published it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

VENDOR = Path(__file__).resolve().parents[2] / "chat/static/chat/vendor"
PACKAGES = json.loads((VENDOR / "vendor.json").read_text())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package["name"]))
def test_every_file_is_the_one_that_was_vendored(package):
    assert package["licence"]
    assert package["source"].startswith("npm:")
    folder = f"{package['name']}-{package['version']}"
    assert f"{folder}/LICENSE" in package["files"]
    for name, digest in package["files"].items():
        assert name.startswith(f"{folder}/")
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_no_file_is_there_unlisted():
    listed = {name for package in PACKAGES for name in package["files"]}
    found = {path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("*") if path.is_file()}
    assert found == listed | {"vendor.json"}


def test_our_modules_import_the_listed_versions():
    modules = VENDOR.parent / "js"
    text = "".join(path.read_text() for path in modules.rglob("*.js"))
    for package in PACKAGES:
        assert f"vendor/{package['name']}-{package['version']}" in text
