"""PESQ values, in a process of its own: started by metrics.py.

    python -m tokenlab.audio.pesq_child SAMPLES < original and copies > answers

The package pesq holds the ITU's C code, which has room for 50 utterances and checks nothing, and ends the process
where its alignment goes astray (`exit(1)` in pesqmod.c). Waves of SAMPLES float32 at 16 kHz go in, the original
first; a line of JSON comes out for each copy as soon as it is known: the value, or why there is none.
"""

from __future__ import annotations

import json
import math
import os
import sys

import numpy as np

from tokenlab import limits
from tokenlab.audio.espeak_child import restrict


def measure(original: np.ndarray, copy: np.ndarray) -> dict[str, float | str]:
    import pesq

    try:
        value = pesq.pesq(16_000, original, copy, "wb")
    except pesq.NoUtterancesError:
        return {"reason": "no speech found in the original"}
    except pesq.BufferTooShortError:
        return {"reason": "shorter than 0.25 s"}
    except (pesq.PesqError, ValueError):  # a NaN inside makes its way out as ValueError
        return {"reason": "its program gives no value for this pair"}
    return {"value": value} if math.isfinite(value) else {"reason": "its program gives no value for this pair"}


def main(samples: int) -> None:
    # Two seconds more than the app waits, in case nobody is left to end this process.
    restrict(math.ceil(limits.CHILD_SECONDS) + 2, limits.CHILD_MEMORY_BYTES)
    # The answer leaves by a private copy of standard output, so that nothing the program prints is mixed in.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    original, *copies = np.frombuffer(sys.stdin.buffer.read(), "<f4").reshape(-1, samples)
    for copy in copies:
        print(json.dumps(measure(original, copy)), file=answer, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
