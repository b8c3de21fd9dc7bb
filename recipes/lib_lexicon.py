"""Makes assets/text/lib_lexicon.json: the LiB lexicon of the default corpus after 3,000 epochs.

    python recipes/lib_lexicon.py

The same training sentences, settings and seed as the panel's default run, only longer. About half a minute.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tokenlab.text import story_corpus
from tokenlab.text.less_is_better import SHIPPED, STORIES, LiB, held_out, lib_cutter, score, sentences

EPOCHS = 3000
MAX_LEN = 16


def main() -> None:
    text = story_corpus.stories(STORIES)
    train, test = held_out(sentences(text, spaces=True))
    start = time.perf_counter()
    learner = LiB([sentence.text for sentence in train], max_len=MAX_LEN, seed=0)
    for epoch in range(1, EPOCHS + 1):
        learner.epoch()
        if epoch % 500 == 0:
            print(epoch, "epochs:", len(learner.lexicon), "chunks", flush=True)
    lexicon = learner.lexicon
    print(score(lib_cutter(lexicon, time.perf_counter() - start), train, test))
    stored = {
        "epochs": EPOCHS,
        "seed": 0,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "max_len": lexicon.max_len,
        "alphabet": "".join(sorted(lexicon.alphabet)),
        "order": lexicon.order,
    }
    SHIPPED.write_text(json.dumps(stored, ensure_ascii=False, indent=0) + "\n", "utf-8")
    print("wrote", SHIPPED)


if __name__ == "__main__":
    main()
