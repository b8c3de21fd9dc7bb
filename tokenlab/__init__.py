"""TokenLab: explore tokenization in text, inside language models, in pictures, audio, graphs and shapes.

Nothing in this package imports Gradio, so all of it works from a notebook. A *system* is a module
with two functions, `run` (what the panel shows) and `measure` (the paper's claim at our scale);
`tokenlab.catalog` lists them, `tokenlab.guard.answer` runs one safely.
"""

__version__ = "0.1.0"
