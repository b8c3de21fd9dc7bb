"""spaces.yaml is our deployment manifest; the Hub itself reads only the front matter of README.md.

So the front matter is rendered from the manifest, and a test fails when the two disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def front_matter(manifest: dict[str, Any]) -> str:
    """The YAML block for README.md: the `space` section, the Python version, the hardware, what to preload."""
    block = dict(manifest["space"])
    block["python_version"] = str(manifest["python_version"])
    block["suggested_hardware"] = manifest["hardware"]
    if manifest["preload"]:
        block["preload_from_hub"] = manifest["preload"]
    return f"---\n{yaml.safe_dump(block, sort_keys=False, allow_unicode=True)}---\n"


def manifest() -> dict[str, Any]:
    """spaces.yaml as data."""
    return yaml.safe_load((ROOT / "spaces.yaml").read_text("utf-8"))


def rendered(readme: str) -> str:
    """`readme` with the front matter that the manifest asks for."""
    body = readme.split("---\n", 2)[2] if readme.startswith("---\n") else "\n" + readme
    return front_matter(manifest()) + body


def agrees() -> bool:
    """True when README.md carries exactly the front matter of spaces.yaml."""
    readme = (ROOT / "README.md").read_text("utf-8")
    return readme == rendered(readme)


def write() -> None:
    """Put the front matter into README.md."""
    path = ROOT / "README.md"
    path.write_text(rendered(path.read_text("utf-8")), "utf-8")
