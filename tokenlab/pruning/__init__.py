"""Visual tokens: which pieces of a picture a vision-language model needs, and what it costs to leave the others out.

An image encoder cuts a picture into patches and gives each of them a vector, a *visual token*; a projector turns them
into something that a language model reads like words. They are many (576 in LLaVA-1.5, 144 here), most of them show
nothing that the question is about, and attention over them is most of the work. The systems here drop them, merge
them, or compress them: in the encoder, behind it, or layer by layer in the language model.

Members share these interfaces:

- `reduction.py`: `TokenReduction`, the four places where a method can act, and the driver: `encode` a picture, `read`
  it with a question and a method, `generate` the answer. Tokens are really removed; work is counted by formula.
- `baselines.py`: random, uniform grid, FastV, an oracle and no picture at all; `Ranked` for methods that score patches.
- `policies.py`: the registry of what the workbench compares, one entry per method.
- `benchmark.py`: accuracy on drawn scenes by kind of question, with paired intervals, for any list of methods.
- `scenes.py`: the drawn scenes: truth, questions, large scenes with crops, clips.
- `vlm.py`: shapes-vlm, the small LLaVA that ships; `vlm_onnx.py`: its graphs. Any LLaVA checkpoint of the Hub goes
  through the same drivers (`tokenlab.models.vision`).
- `vit_attention.py`: where an image encoder looks: heads, rollout, norms.

The workbench is `compare.py`.

One file per paper:

- `fastervlm.py`: FasterVLM keeps what [CLS] looks at

Still to come: vtc-cls, globalcom2, pyramiddrop, aim, atp-llava, g-search, dyvte, yopo, m3, pvc, tokenpacker, sit,
super-token.
"""
