"""A page with nothing but the control for a sound and what its value comes to.

python -m tests.browser.sound_panel PORT
"""

import sys

import gradio as gr
import numpy as np

from components import shell
from components.controls import widget
from tokenlab import limits, sounds
from tokenlab.controls import Sound
from tokenlab.errors import UserError
from tokenlab.spec import Field

limits.SOUND_SECONDS = 3.0  # so that a recording ends soon; the child that decodes it has the usual limits


def about(ref: str) -> str:
    """Label | seconds | loudest frequency [Hz]; or the sentence that says what is wrong."""
    try:
        wave = sounds.load(ref)
    except UserError as error:
        return str(error)
    spectrum = np.abs(np.fft.rfft(wave))
    return f"{sounds.label(ref)} | {len(wave) / 24_000:.2f} | {spectrum.argmax() * 24_000 / len(wave):.0f}"


with gr.Blocks(analytics_enabled=False) as demo:
    with gr.Column(elem_classes="tl-panel"):
        with gr.Column(elem_classes="tl-controls"):
            made = widget(Field("sound", Sound("Sound"), "sample:tones"), "sample:tones", True, "toy")
        said = gr.Textbox(label="About it", elem_id="about")
    made.component.change(about, made.component, said)

if __name__ == "__main__":
    demo.launch(server_port=int(sys.argv[1]), **{**shell.launch_settings(), "mcp_server": False})
