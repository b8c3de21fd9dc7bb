"""The running app from outside: one endpoint per live system, the same list over MCP, links after a restart."""

import json
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Annotated

import pytest
from gradio_client import Client

from components import api, share
from tokenlab import catalog, pictures, sounds, spec
from tokenlab.controls import Picture, Sound

LIVE = [entry.slug for entry in catalog.live()]


@pytest.fixture(scope="module")
def client(app):
    return Client(app.url, verbose=False)


def mcp(app, method, **params):
    """One call to the MCP server, as JSON-RPC over streamable HTTP."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(f"{app.url}/gradio_api/mcp/", json.dumps(body).encode(), headers)
    answer = urllib.request.urlopen(request, timeout=60).read().decode()
    data = next((line[6:] for line in answer.splitlines() if line.startswith("data: ")), answer)
    return json.loads(data)["result"]


def test_the_endpoints_are_exactly_the_live_systems(app):
    info = json.loads(urllib.request.urlopen(f"{app.url}/gradio_api/info", timeout=20).read())
    assert sorted(info["named_endpoints"]) == sorted(f"/{slug}" for slug in LIVE)
    assert info["unnamed_endpoints"] == {}


@pytest.mark.parametrize("slug", LIVE)
def test_an_endpoint_announces_the_signature(app, slug):
    info = json.loads(urllib.request.urlopen(f"{app.url}/gradio_api/info", timeout=20).read())
    announced = info["named_endpoints"][f"/{slug}"]["parameters"]
    fields = spec.fields(catalog.find(slug).module().run)
    assert [p["parameter_name"] for p in announced] == [f.name for f in fields]
    assert all(p["parameter_has_default"] for p in announced)


@pytest.mark.parametrize("slug", LIVE)
def test_an_endpoint_answers_its_default(client, slug):
    result = client.predict(api_name=f"/{slug}")
    assert list(result) == list(spec.result_views(catalog.find(slug).module().run))
    assert any(result.values())


def test_a_picture_is_described_for_readers_who_see_no_menu():
    def run(picture: Annotated[str, Picture("Picture")] = "photo:astronaut"): ...

    line = api.describe(SimpleNamespace(sentence="A toy.", module=lambda: SimpleNamespace(run=run))).splitlines()[-1]
    assert line.startswith("    picture: Picture. photo:astronaut, ") and "data:image/png;base64" in line
    assert all(f"photo:{name}" in line for name in pictures.PHOTOS) and "scene:SEED" in line and "upload:" not in line


def test_a_sound_is_described_for_readers_who_see_no_menu():
    def run(sound: Annotated[str, Sound("Sound")] = "sample:chord"): ...

    line = api.describe(SimpleNamespace(sentence="A toy.", module=lambda: SimpleNamespace(run=run))).splitlines()[-1]
    assert line.startswith("    sound: Sound. sample:") and "data:audio/wav;base64" in line and "upload:" not in line
    assert all(f"sample:{name}" in line for name in sounds.SAMPLES) and "say:VOICE:TEXT" in line


def test_an_endpoint_takes_values(client):
    result = client.predict(text="naïve", tokenizers=["bytes", "characters"], api_name="/compare-tokenizers")
    assert [len(row["starts"]) for row in result["strip"]["rows"]] == [6, 5]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tokenizers": ["bytes"]}, "2 to 6"),
        ({"price": -1}, "outside"),
        ({"text": "x" * 250_000}, "250,000 characters"),
        ({"text": "x" * 100_000}, "without a space"),
        ({"tokenizers": ["bytes", "hub:../../etc/passwd"]}, "owner/name"),
        ({"tokenizers": ["bytes", "file:0123456789abcdef"]}, "upload"),
        ({"tokenizers": ["bytes", "hub:gpt2-of-nobody/none"]}, ""),
    ],
)
def test_bad_values_are_one_sentence_and_the_app_lives(client, values, says):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        client.predict(**values, api_name="/compare-tokenizers")
    sentence = str(caught.value)
    assert says in sentence and "Traceback" not in sentence and "Something went wrong" not in sentence
    assert client.predict(text="ok", tokenizers=["bytes", "words"], api_name="/compare-tokenizers")["strip"]


def test_half_a_character_is_one_sentence(app):
    """gradio_client cannot even send a lone surrogate; a hand-written request can."""
    headers = {"Content-Type": "application/json"}
    call = f"{app.url}/gradio_api/call/compare-tokenizers"
    named = urllib.request.Request(call.replace("/call/", "/call/v2/"), b'{"text": "a\\ud800b"}', headers)
    started = json.loads(urllib.request.urlopen(named, timeout=20).read())
    answer = urllib.request.urlopen(f"{call}/{started['event_id']}", timeout=20).read().decode()
    assert "event: error" in answer and "U+D800" in answer


def test_mcp_lists_exactly_the_live_systems_with_their_sentences(app):
    tools = {tool["name"]: tool for tool in mcp(app, "tools/list")["tools"]}
    assert sorted(tools) == sorted(slug.replace("-", "_") for slug in LIVE)
    for slug in LIVE:
        tool = tools[slug.replace("-", "_")]
        assert catalog.find(slug).sentence in tool["description"]
        assert list(tool["inputSchema"]["properties"]) == [f.name for f in spec.fields(catalog.find(slug).module().run)]


def test_an_mcp_tool_answers(app):
    arguments = {"text": "a b", "tokenizers": ["bytes", "words"]}
    result = mcp(app, "tools/call", name="compare_tokenizers", arguments=arguments)
    assert not result["isError"] and "graphemes" in result["content"][0]["text"]


def test_a_private_handler_or_a_server_file_is_out_of_reach(app):
    for path in ("/etc/passwd", str(catalog.HERE / "catalog.toml")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{app.url}/gradio_api/file={path}", timeout=20)
        assert caught.value.code in (403, 404)


def test_a_link_means_the_same_after_a_restart(app):
    values = spec.check(
        catalog.find("compare-tokenizers").module().run, {"text": "tea & Tee", "tokenizers": ["words", "bytes"]}
    )
    link = share.write("compare-tokenizers", values)
    before = urllib.request.urlopen(f"{app.url}/?{link.query}", timeout=20).status
    app.restart()
    after = urllib.request.urlopen(f"{app.url}/?{link.query}", timeout=20).status
    assert before == after == 200
    pairs = dict(pair.split("=", 1) for pair in link.query.split("&"))
    assert share.read(pairs) == share.Opened("compare-tokenizers", values)
