"""Makes assets/models/bytelm: the same network as tinylm over bytes.

python recipes/bytelm.py --data DATA --work WORK                                  # train; can be stopped and resumed
python recipes/bytelm.py --data DATA --work WORK --export assets/models/bytelm    # write the model, measure it
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import train_lm
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

PLAN = train_lm.Plan(
    vocab=len(train_lm.SPECIAL) + 256,
    context=1024,
    chars_per_token=1.0,
    vocabulary="one token per byte",
    recall_aim=False,
    cases=10,
    tried="The run was short, 10 M bytes, and on natural text it shows: an n-gram that has seen all of it is better. "
    "bytelm is there to be a second model with another vocabulary, not to recall. Steps up to "
    "1,236 were made with an earlier form of the stories (fewer wordings, names put together from syllables), and "
    "it was stopped 77 steps before the end that its last plan had, at 17 % of the full rate.",
    stages=(
        train_lm.Stage(1500, 256, 4096, natural=0.4, twice=0.2),
        train_lm.Stage(400, 512, 8192, natural=0.4, twice=0.1),
        train_lm.Stage(133, 1024, 8192, natural=0.4),
    ),
)


def new_tokenizer(data: Path, plan: train_lm.Plan) -> Tokenizer:
    """One token per byte: a byte-level BPE without merges. Byte b has the id 3 + its place in the BPE alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*train_lm.SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(list(train_lm.SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


if __name__ == "__main__":
    train_lm.main(__doc__, PLAN, new_tokenizer)
