"""python -m tokenlab, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tokenlab import catalog

ROOT = Path(__file__).parent.parent


def tokenlab(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tokenlab", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_list_as_json():
    done = tokenlab("list", "--json")
    rows = json.loads(done.stdout)
    assert len(rows) == 72 and done.returncode == 0
    assert all(list(row) == ["slug", "kind", "family", "live", "claim"] for row in rows)
    row = next(row for row in rows if row["slug"] == "data-mixture")
    assert row["live"] and list(row["claim"]) == ["metric", "value", "baseline", "bar", "holds", "seed", "n", "seconds"]
    assert next(row for row in rows if row["slug"] == "h2o")["kind"] == "system"


def test_models_as_json():
    done = tokenlab("models", "--json")
    assert done.returncode == 0 and isinstance(json.loads(done.stdout), list)


def test_run_with_settings_as_json():
    done = tokenlab("run", "compare-tokenizers", "--set", "text=a é", "--set", "tokenizers=bytes,characters", "--json")
    strip = json.loads(done.stdout)["strip"]
    assert strip["graphemes"] == ["a", " ", "é"]
    assert [row["ends"] for row in strip["rows"]] == [[1, 2, 3, 4], [1, 2, 4]]


def test_run_on_files_of_ones_own(tmp_path):
    (tmp_path / "text.txt").write_text("ab abc", "utf-8")
    (tmp_path / "mine.json").write_text(
        (Path(__file__).parent / "text" / "toy_tokenizer.json").read_text("utf-8"), "utf-8"
    )
    done = tokenlab(
        "run",
        "compare-tokenizers",
        "--set",
        f"text=@{tmp_path}/text.txt",
        "--set",
        f"tokenizers=bytes,{tmp_path}/mine.json",
        "--json",
    )
    assert [len(row["starts"]) for row in json.loads(done.stdout)["strip"]["rows"]] == [6, 3]


def test_a_picture_may_be_a_path_on_the_command_line(tmp_path):
    from types import SimpleNamespace
    from typing import Annotated

    from PIL import Image

    from tokenlab import cli, pictures
    from tokenlab.controls import Picture, Text

    def toy(picture: Annotated[str, Picture("Picture")] = "photo:coffee", text: Annotated[str, Text("Text")] = ""): ...

    module, path = SimpleNamespace(run=toy), tmp_path / "a picture=1.png"
    Image.new("RGB", (5, 4)).save(path)
    values = cli._values(module, [f"picture={path}", f"text={path}"])
    assert values["text"] == str(path) and values["picture"].startswith("upload:")
    assert pictures.load(values["picture"]).shape == (4, 5, 3)
    data = "data:image/png;base64," + "A" * 5_000  # far longer than a path may be
    assert cli._values(module, ["picture=scene:3"]) == {"picture": "scene:3"}
    assert cli._values(module, [f"picture={data}"]) == {"picture": data}


def test_a_sound_may_be_a_path_on_the_command_line():
    from types import SimpleNamespace
    from typing import Annotated

    from tokenlab import cli, sounds
    from tokenlab.controls import Sound

    def toy(sound: Annotated[str, Sound("Sound")] = "sample:chord"): ...

    module, path = SimpleNamespace(run=toy), sounds.FOLDER / "bell.flac"
    ref = cli._values(module, [f"sound={path}"])["sound"]
    assert ref.startswith("upload:") and (sounds.load(ref) == sounds.load("sample:bell")).all()
    assert cli._values(module, ["sound=say:de:a=b"]) == {"sound": "say:de:a=b"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "nonsense"), "no system called 'nonsense'"),
        (("run", "keyformer"), "not built yet"),
        (("run", "compare-tokenizers", "--set", "text"), "name=value"),
        (("run", "compare-tokenizers", "--set", "depth=3"), "no setting 'depth'"),
        (("run", "compare-tokenizers", "--set", "text=@/no/such/file"), "could not be read"),
        (("reproduce", "compare-tokenizers"), "makes no claim"),
        (("reproduce",), "Name one system"),
        (("export", "nonsense"), "no such model"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, says):
    done = tokenlab(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


class Measured:
    """Stands in for a system whose claim has stopped holding."""

    def __init__(self, holds):
        self.holds = holds

    def measure(self, seed=0):
        from tokenlab.measurement import Measurement

        return Measurement(
            claim="c",
            metric="m",
            unit="",
            value=1.0,
            baseline_name="b",
            baseline=0.0,
            bar=2.0,
            direction="higher",
            holds=self.holds,
            reason="r",
            paper="p",
            n=2,
            seed=seed,
            seconds=0.1,
        )


def test_reproduce_fails_when_a_claim_no_longer_holds(monkeypatch, tmp_path):
    from tokenlab import cli, measurement
    from tokenlab.errors import UserError

    monkeypatch.setattr(measurement, "RESULTS", tmp_path)
    monkeypatch.setattr(catalog.Entry, "module", lambda self: Measured(self.name == "good"))
    entry = catalog.find("data-mixture")
    monkeypatch.setattr(catalog, "find", lambda slug: entry)
    measurement.store("data-mixture", Measured(True).measure())
    with pytest.raises(UserError, match="no longer does: data-mixture"):
        cli.reproduce("data-mixture")
    assert measurement.stored("data-mixture")["holds"] is False
    cli.reproduce("data-mixture")  # it is recorded as not holding now, so this is no failure


@pytest.mark.parametrize("arguments", [("list", "--jsonn"), ("nosuch",), ("run",)])
def test_a_mistyped_command_is_explained_without_a_traceback(arguments):
    done = tokenlab(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.strip()
