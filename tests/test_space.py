"""README.md carries the front matter that spaces.yaml asks for, and the versions agree."""

from pathlib import Path

import yaml

from tokenlab import space

ROOT = Path(__file__).parent.parent


def test_readme_and_manifest_agree():
    assert space.agrees(), "run python -m tokenlab space"


def test_rendering_replaces_only_the_front_matter():
    readme = (ROOT / "README.md").read_text("utf-8")
    changed = readme.replace("title: TokenLab", "title: Other", 1)
    assert changed != readme and space.rendered(changed) == readme
    assert space.rendered("# Bare\n").endswith("---\n\n# Bare\n")


def test_front_matter_is_what_the_hub_reads():
    block = yaml.safe_load((ROOT / "README.md").read_text("utf-8").split("---\n")[1])
    pins = (ROOT / "requirements.txt").read_text("utf-8")
    assert block["sdk"] == "gradio" and block["app_file"] == "app.py"
    assert f"gradio[mcp]=={block['sdk_version']}" in pins
    assert len(block["short_description"]) <= 60 and isinstance(block["python_version"], str)
