"""Controls check what a link, the command line or an endpoint hands them."""

import math

import pytest

from tokenlab.controls import Choice, Choices, Model, Number, Picture, Seed, Slider, Sound, Switch, Text, Tokenizers
from tokenlab.errors import UserError

BUDGET = Slider("Budget", minimum=0.05, maximum=1.0, step=0.05)
LAYERS = Slider("Layers", minimum=1, maximum=12, step=1)
MODE = Choice("Mode", options=("full", "local"))


@pytest.mark.parametrize(
    ("control", "given", "value"),
    [
        (Text("Prompt"), "héllo", "héllo"),
        (BUDGET, 0.2, 0.2),
        (BUDGET, "0.2", 0.2),
        (LAYERS, 3.0, 3),
        (Number("Price"), 2, 2.0),
        (Number("Price"), None, 0.0),
        (Seed(), "7", 7),
        (Switch("On"), True, True),
        (Switch("On"), "false", False),
        (MODE, "local", "local"),
        (Choices("Which", options=("a", "b", "c")), ["c", "a", "c"], ("c", "a")),
        (Choices("Which", options=("a", "b", "c")), "a, b", ("a", "b")),
        (Tokenizers("Tokenizers"), ["bytes", "words", "bytes"], ("bytes", "words")),
        (Tokenizers("Tokenizers"), ["bytes", "gpt2/x.y"], ("bytes", "hub:gpt2/x.y")),
        (Tokenizers("Tokenizers"), ["mistral V7", "Words"], ("mistral-v7", "words")),
        (Picture("Picture"), " photo:chelsea ", "photo:chelsea"),
        (Picture("Picture"), "Cat", "photo:chelsea"),
        (Picture("Picture"), "scene:7", "scene:7"),
        (Picture("Picture"), "upload:0123456789abcdef", "upload:0123456789abcdef"),
        (Sound("Sound"), " sample:chord ", "sample:chord"),
        (Sound("Sound"), "Pink noise", "sample:noise"),
        (Sound("Sound"), "say:de:Guten Tag", "say:de:Guten Tag"),
        (Model("Model"), " tinylm ", "tinylm"),
        (Model("Model"), "owner/name", "hub:owner/name"),
    ],
)
def test_good_values_come_back_in_their_type(control, given, value):
    checked = control.check(given)
    assert checked == value and type(checked) is type(value)


@pytest.mark.parametrize(
    ("control", "given", "says"),
    [
        (Text("Prompt"), 3, "Prompt"),
        (Text("Prompt", characters=5), "123456", "6 characters"),
        (Text("Prompt"), "a\ud800b", "U+D800"),
        (Text("Prompt"), "a" * 100_000, "without a space"),
        (BUDGET, 1.5, "outside 0.05 to 1"),
        (BUDGET, math.nan, "finite"),
        (BUDGET, "much", '"much" is not a number'),
        (BUDGET, True, "number"),
        (Seed(), 1.5, "whole number"),
        (Seed(), -1, "whole number"),
        (Switch("On"), "perhaps", "true or false"),
        (MODE, "sideways", '"sideways" is not one of full, local'),
        (MODE, ["full"], "is not one of"),
        (Choices("Which", options=("a",)), ["z"], '"z" is not one of'),
        (Choices("Which", options=("a",)), [], "at least 1"),
        (Choices("Which", options=("a",)), {"a": 1}, "list of names"),
        (Tokenizers("Tokenizers"), ["bytes"], "2 to 6"),
        (Tokenizers("Tokenizers", least=1, most=1), ["bytes", "words"], "choose 1 tokenizer"),
        (Tokenizers("Tokenizers"), ["bytes", "../../etc/passwd"], "owner/name"),
        (Tokenizers("Tokenizers"), 5, "list of names"),
        (Picture("Picture"), "", "wants a picture"),
        (Picture("Picture"), {"path": "/etc/passwd"}, "wants a picture"),
        (Picture("Picture"), "assets/style.css", "no picture"),
        (Picture("Picture"), "data:image/png;base64,AAAA", "save it as PNG"),
        (Sound("Sound"), "", "wants a sound"),
        (Sound("Sound"), {"path": "/etc/passwd"}, "wants a sound"),
        (Sound("Sound"), "assets/audio/chord.flac", "no sound"),
        (Sound("Sound"), "data:audio/wav;base64,AAAA", "save it as WAV"),
        (Model("Model"), "gpt9", "choose one of tinylm, bytelm or hub:owner/name"),
        (Model("Model"), "hub:../../etc", "owner/name"),
        (Model("Model"), "", "name of a model"),
        (Model("Model"), None, "name of a model"),
    ],
)
def test_bad_values_get_one_sentence(control, given, says):
    with pytest.raises(UserError, match="(?s).+") as caught:
        control.check(given)
    sentence = str(caught.value)
    assert says in sentence and "\n" not in sentence and len(sentence) < 300


def test_a_long_text_without_latin_spaces_is_no_endless_word():
    japanese = "昨日、図書館で古い地図を見つけました。" * 2_000
    assert len(japanese) > 20_000 and Text("Text").check(japanese) == japanese


def test_tokenizers_that_another_panel_hands_over():
    one, two = Tokenizers("T", least=1, most=1), Tokenizers("T")
    assert one.take(["mistral-v3", "tekken-240911", "bytes"], ("mistral-v1",)) == ("tekken-240911",)  # added last
    assert one.take(["bytes"], ("mistral-v1",)) == ("bytes",)
    assert two.take(["mistral-v3"], ("tekken-240911", "bytes")) == ("mistral-v3", "tekken-240911")  # filled up
    with pytest.raises(UserError):
        two.take([7], ("bytes", "words"))


def test_hints_are_what_endpoints_announce():
    assert (LAYERS.hint, BUDGET.hint, Text("x").hint) == (int, float, str)
    assert MODE.hint.__args__ == ("full", "local")


def test_no_path_is_ever_read_from_a_value(tmp_path):
    """Only the command line takes paths; what comes over a link or an endpoint ends here."""
    from tokenlab import pictures, sounds

    path = tmp_path / "mine.png"
    path.write_bytes(b"not opened, else the sentence would speak of the file")
    for value in (str(path), f"file://{path}", f"photo:{path}", f"upload:{path}", f"@{path}"):
        with pytest.raises(UserError, match="There is no picture"):
            pictures.load(Picture("Picture").check(value))
    for value in (str(path), f"file://{path}", f"sample:{path}", f"upload:{path}", f"@{path}"):
        with pytest.raises(UserError, match="There is no sound"):
            sounds.load(Sound("Sound").check(value))


def test_a_seventh_tokenizer_says_which_one_had_to_go():
    from pathlib import Path

    import gradio as gr

    from components.controls import widget
    from tokenlab.spec import Field

    refs = ["mistral-v1", "mistral-v3", "tekken-240911", "bytes", "characters", "words"]
    field = Field("tokenizers", Tokenizers("Tokenizers"), tuple(refs[:2]))
    with gr.Blocks() as demo:
        widget(field, refs, True, "toy")
    (take,) = [event.fn for event in demo.fns.values()]
    path = str(Path(__file__).parent / "text" / "toy_tokenizer.json")
    update, said = take(path, refs)
    assert update["value"][:5] == refs[:5] and update["value"][5].startswith("file:")
    assert said == "No more than 6 fit, so Words had to go."
    assert take(path, refs[:5])[1] is None


def test_the_widget_of_a_picture_takes_an_upload_and_shows_it_by_name(tmp_path):
    import gradio as gr
    import numpy as np
    from PIL import Image

    from components.controls import widget
    from tokenlab import pictures
    from tokenlab.spec import Field

    field = Field("picture", Picture("Picture"), "photo:astronaut")
    with gr.Blocks() as demo:
        made = widget(field, "scene:99", True, "toy")
    assert made.component.value == "scene:99" and made.component.choices[-1] == ("Scene 99", "scene:99")
    assert {*pictures.offered()} < {*made.component.choices} and len(made.extra) == 2
    (take,) = [event.fn for event in demo.fns.values()]
    Image.fromarray(np.full((2, 3, 3), 7, np.uint8)).save(tmp_path / "mine.png")
    update, said = take(str(tmp_path / "mine.png"), "scene:99")
    assert said is None and update["choices"][-1] == (f"mine.png {update['value'][-4:]}", update["value"])
    assert pictures.load(update["value"]).shape == (2, 3, 3)
    (tmp_path / "mine.png").write_text("no picture at all")
    update, said = take(str(tmp_path / "mine.png"), "scene:99")
    assert "value" not in update and said.startswith("This file is not a picture")


def test_the_widget_of_a_sound_takes_an_upload_shows_it_by_name_and_keeps_no_file(tmp_path):
    import gradio as gr
    import numpy as np
    import soundfile

    from components.controls import widget
    from tokenlab import sounds
    from tokenlab.spec import Field

    field = Field("sound", Sound("Sound"), "sample:chord")
    with gr.Blocks() as demo:
        made = widget(field, "say:de:Guten Tag", True, "toy")
    assert made.component.value == "say:de:Guten Tag"
    assert made.component.choices[-1] == ("Guten Tag", "say:de:Guten Tag")
    assert {*sounds.offered()} < {*made.component.choices} and len(made.extra) == 3
    assert made.extra[2].value == {
        "kind": "recorder",
        "data": '{"upload": "control-toy--sound-upload", "seconds": 20.0}',
    }
    (take,) = [event.fn for event in demo.fns.values()]
    path = tmp_path / "mine.wav"
    soundfile.write(path, np.full(4_000, 0.25), 16_000)
    update, said = take(str(path), "sample:chord")
    assert said is None and update["choices"][-1] == (f"mine.wav {update['value'][-4:]}", update["value"])
    assert sounds.load(update["value"], 16_000).shape == (4_000,) and not path.exists()
    path.write_text("no sound at all")
    update, said = take(str(path), "sample:chord")
    assert "value" not in update and said.startswith("This file is not a sound") and not path.exists()
