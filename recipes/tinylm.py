"""Makes assets/models/tinylm: a 5.8 M parameter Llama with a 4k byte-level BPE that recalls what a story said.

python recipes/tinylm.py --data DATA --work WORK                                  # train; can be stopped and resumed
python recipes/tinylm.py --data DATA --work WORK --export assets/models/tinylm    # write the model, measure it
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import train_lm
from text_data import natural_text
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tokenlab import stories

# Words with the blank before them, single digits (a code is three tokens), signs, white space; no look-ahead.
PATTERN = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def new_tokenizer(data: Path, plan: train_lm.Plan) -> Tokenizer:
    """A byte-level BPE of natural text and a few stories, so few that the names of the stories stay in pieces."""
    rng = random.Random(0)
    told = [stories.story(rng.randrange(2**40), "train", 600, 6, "along").text for _ in range(600)]
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocab,
        special_tokens=list(train_lm.SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(natural_text(data, "train") + told, trainer)
    return tokenizer


if __name__ == "__main__":
    tried = Path(__file__).with_name("tinylm_tried.md").read_text("utf-8").strip()
    train_lm.main(__doc__, train_lm.Plan(tried=tried), new_tokenizer)
