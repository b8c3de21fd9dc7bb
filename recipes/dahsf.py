"""The learned parsers that the experiment of dahsf compares with: assets/text/dahsf/learned.safetensors.

    python recipes/dahsf.py

Three networks (0.39 million parameters each) on 50, 200 and 1,000 sentences that the rules generate, half in English
and half in Chinese. Seed 0; some minutes on one CPU thread. Prints the last loss and exact matches on other
generated sentences.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tokenlab.text import dahsf
from tokenlab.text.learned_parser import Learned, save_all


def main() -> None:
    forests = {False: dahsf.domain_rules("english"), True: dahsf.domain_rules("chinese")}
    held_out = [pair for chinese, forest in forests.items() for pair in dahsf.generated(forest, chinese, 100, 1000)]
    parsers = {}
    for n, steps in dahsf.SIZES.items():
        parser = parsers[str(n)] = Learned(0)
        loss = parser.train(dahsf.training_pairs(forests, n, 0), steps, dahsf.BATCH, dahsf.RATE)
        answers = parser.answers([said for said, _ in held_out])
        exact = dahsf.score(answers, [gold for _, gold in held_out]).exact
        print(f"{n:,} pairs, {steps:,} steps: loss {loss:.4f}, exact {exact:.1f} %, {parser.seconds:.0f} s", flush=True)
        save_all(dahsf.FOLDER / "learned.safetensors", parsers)


if __name__ == "__main__":
    main()
