"""Writes story worlds as JSON lines: text, and each question with its spans, answer, kind and distance.

python recipes/story_worlds.py --n 1000 --split train > stories.jsonl
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tokenlab import stories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--split", choices=stories.SPLITS, default="train")
    parser.add_argument("--chars", type=int, default=600, help="about how long a story is")
    parser.add_argument("--facts", type=int, default=6)
    parser.add_argument("--ask", choices=("end", "along"), default="end")
    args = parser.parse_args()
    for seed in range(args.n):
        made = stories.story(seed, args.split, args.chars, args.facts, args.ask)
        asked = [asdict(question) | {"distance": question.distance} for question in made.questions]
        print(json.dumps({"text": made.text, "questions": asked}))


if __name__ == "__main__":
    main()
