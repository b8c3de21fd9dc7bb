"""The catalogue holds all systems from day one and is cheap to read."""

import subprocess
import sys

import pytest

from tokenlab import catalog, measurement, spec
from tokenlab.errors import UserError

LIVE = [entry.slug for entry in catalog.live()]


def test_67_systems_5_workbenches_8_families():
    kinds = [entry.kind for entry in catalog.entries()]
    assert (kinds.count("system"), kinds.count("workbench"), len(catalog.families())) == (67, 5, 8)
    assert len({entry.slug for entry in catalog.entries()}) == 72
    families = {family.slug for family in catalog.families()}
    for entry in catalog.entries():
        assert entry.family in families and entry.name and entry.title
        assert entry.sentence.endswith(".") and len(entry.sentence) <= 190
        assert all(link == "" or link.startswith("https://") for link in (entry.paper, entry.code))


def test_a_tab_starts_with_its_workbench():
    assert catalog.of_family("text")[0].slug == "compare-tokenizers"


def test_reading_the_catalogue_imports_no_torch_and_no_system():
    code = (
        "import sys; from tokenlab import catalog; catalog.live(); "
        "heavy = ('torch', 'gradio', 'transformers', 'scipy'); "
        "print([m for m in sys.modules if m.split('.')[0] in heavy or m.startswith('tokenlab.text')])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_what_is_not_live_says_so():
    entry = next(entry for entry in catalog.entries() if not entry.live)
    with pytest.raises(UserError, match="not built yet"):
        entry.module()
    with pytest.raises(UserError, match="Catalogue tab"):
        catalog.find("nonsense")


@pytest.mark.parametrize("slug", LIVE)
def test_a_live_module_keeps_the_contract(slug):
    entry = catalog.find(slug)
    module = entry.module()
    assert len(module.__doc__) > 300
    assert spec.fields(module.run) and spec.result_views(module.run)
    assert spec.check(module.run, {})
    for field in spec.fields(module.run):
        if field.control.when:
            controlling = {f.name: f.control for f in spec.fields(module.run)}[field.control.when[0]]
            assert all(controlling.check(_like(controlling, value)) is not None for value in field.control.when[1:])


def _like(control, value):
    return value == "True" if control.hint is bool else value


@pytest.mark.parametrize("slug", LIVE)
def test_the_stored_default_run_fits_the_module(slug):
    entry = catalog.find(slug)
    stored = entry.stored_default()
    defaults = spec.check(entry.module().run, {})
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in stored["values"].items()} == defaults
    assert list(stored["result"]) == list(spec.result_views(entry.module().run))
    assert any(stored["result"].values())


@pytest.mark.parametrize("slug", [slug for slug in LIVE if catalog.find(slug).kind == "system"])
def test_a_system_has_a_stored_measurement(slug):
    stored = measurement.stored(slug)
    assert {
        "metric",
        "value",
        "baseline",
        "bar",
        "holds",
        "seed",
        "n",
        "seconds",
        "random",
        "full",
        "reason",
        "machine",
        "date",
    } <= set(stored)
    assert stored["n"] > 1 and stored["seconds"] > 0 and stored["figures"]
    better = stored["value"] >= stored["bar"] if stored["direction"] == "higher" else stored["value"] <= stored["bar"]
    assert better or not stored["holds"]
