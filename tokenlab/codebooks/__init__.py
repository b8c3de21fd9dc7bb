"""Codebooks: pictures (clips, shapes, graphs) as short lists of numbers out of a fixed set, and back.

An encoder turns a picture into vectors, a quantiser replaces each vector by an entry of its codebook, a decoder
paints the picture again from the entries. The ids of the entries are the tokens: what a transformer can read and
write like text. The systems here differ in what is quantised, with how many codebooks, in which order tokens come,
and what else the codes are trained to tell.

Members share these interfaces:

- `quantizers.py`: a `Quantizer` takes vectors (B, N, D) to `QuantOut` (quantised vectors, ids, loss) and ids back;
  `make_quantizer(kind, dim, sizes)` makes one of the six common kinds.
- `blocks.py`: a `VisualTokenizer` has `encode`, `decode` (of fewer tokens, too) and `bits`; and the parts to build
  one from: convolutional encoder and decoder, resampler, conditioned transformer block.
- `stats.py`: `CodebookStats`, how a codebook is used. `metrics.py`: how close the pictures come.
- `flow.py`: flow matching, for decoders that paint by it. `prior.py`: `ARPrior`, the judge of what is easy to predict.
- `vq_image.py`: the tokenizers that ship (assets/models/vq-image): photographs as 8 x 8 patches of 10 bits, by
  one codebook (vq), by rounding (fsq), or by two codebooks one behind the other (rvq).

The workbench is `compare.py`.

One file per paper:

- `fqgan.py`: FQGAN, several small codebooks that must say different things

Still to come: vat, flextok, ait, vqgraph, flowar, larp, tokenflow, gsm-plus-plus, seed, tokenunify, lavit.
"""
