"""Audio: sound as short lists of numbers out of fixed sets, and back.

A codec turns a second of sound, 24,000 samples, into some hundred numbers; what it writes can be stored, sent, or read
and written by a language model. The systems here differ in what the numbers stand for (how it sounds, what is said),
in how many there are for a second, and in what is done with them: store, recognise, clean, speak.

Members share these interfaces:

- `tokenizer.py`: an `AudioTokenizer` has `encode` and `decode`, a sample rate, a frame rate and the sizes of its
  codebooks; a `FrameVocoder` makes sound of frames.
- `mel.py`: log-mel frames of sound, and `MelSynth`, the one way from frames to sound (Griffin-Lim).
- `codec.py`: the codecs that ship (assets/models/codec): rvq8, eight codebooks one behind the other, and vq1, one.
  Codecs of the Hub come through tokenlab/models/audio.py.
- `corpus.py`: `say`, sentences spoken by espeak-ng with the time of every word and sound.
- `versions.py`: what came out of codecs, side by side: sizes, loudness, the view that plays them.
- `metrics.py`: how close a copy comes to its original. `opus.py`: the classical codec beside the learned ones.

`tokenlab/sounds.py` reads what visitors send. The workbench is `compare.py`.

One file per paper:

- `wavtokenizer.py`: WavTokenizer, one large codebook instead of many small ones

Still to come: touchtts, gense, cosyvoice, paraformer, vec-tok.
"""
