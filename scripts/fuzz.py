"""Damaged files for everything that reads one: is there a raw error, a warning, a hang, or memory that no file needs?

    make fuzz                                          1,000 damaged files a reader
    make fuzz ARGS="--inputs 100000"                   the long form: hours
    make fuzz ARGS="--reader npz --seed 77 --inputs 1" one file again

Readers are in tests/red_team/readers.py, ways to damage a file in tests/red_team/damage.py. Ends with 1 if anything is
wrong, and says how to see it again.
"""

import argparse
import logging
import secrets
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from red_team.readers import READERS, damage_once, good_file
from tqdm import tqdm


def fuzz(name: str, first: int, inputs: int) -> Counter[str]:
    """What was wrong with a reader, and how often; each kind is printed once."""
    reader, found = READERS[name], Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        good = good_file(reader, Path(folder))
        for seed in tqdm(range(first, first + inputs), name, unit="file", disable=None, leave=False):
            problem = damage_once(reader, good, Path(folder), seed)
            if problem is None:
                continue
            kind = problem[:60]
            found[kind] += 1
            if found[kind] == 1:
                again = f'make fuzz ARGS="--reader {name!r} --seed {seed} --inputs 1"'
                tqdm.write(f"{name}, seed {seed}: {problem}\n  again: {again}")
    return found


def main() -> int:
    """Try the readers in turn; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="damaged files a reader")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; fresh ones without it")
    parser.add_argument("--reader", choices=READERS, default=None, help="one reader only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable()
    first = secrets.randbelow(10**9) if options.seed is None else options.seed
    print(f"seeds from {first} on")
    wrong = 0
    for name in [options.reader] if options.reader else READERS:
        found = fuzz(name, first, options.inputs)
        wrong += sum(found.values())
        print(
            f"{name:13} {options.inputs:,} damaged files, {sum(found.values())} wrong, of {len(found)} kinds",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
