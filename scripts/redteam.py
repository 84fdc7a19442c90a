"""10,000 random and adversarial networks against exact rationals: is a bound below the truth, or a radius above it?

And 1,000 pairs of samples against linear programs: is their distance outside of its interval? And 1,000 networks on
machines that compute in float32 in any order: does one answer otherwise within a radius? And 500 certificates, true and
forged: does `tightlip-check` pass one that an input contradicts?
And 135 commands that are killed, or whose disk fails or loses its power: is anything lost by it?

    make redteam                                            fresh seeds, about a quarter of an hour on one core
    make redteam ARGS="--networks 500 --seed 7"             fewer, and from this seed on
    make redteam ARGS="--family affine --seed 123 --networks 1"    one network again

Families are in tests/red_team/checks.py. Ends with 1 if anything is wrong, and says how to see it again.
"""

import argparse
import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "checker"))

import torch
from red_team import lives
from red_team.checks import FAMILIES
from red_team.tally import Tally
from tqdm import tqdm

IN_ALL = sum(share for _, share in FAMILIES.values())


def attack(family: str, first: int, count: int) -> Tally:
    """So many networks of a family, with seeds from ``first`` on."""
    tally, check = Tally(), FAMILIES[family][0]
    for seed in tqdm(range(first, first + count), family, unit="network", disable=None, leave=False):
        known = len(tally.complaints)
        try:
            check(seed, tally)
        except Exception as problem:  # noqa: BLE001  whatever it is, it has a seed
            tally.complaints.append(f"{type(problem).__name__}: {problem}")
        for complaint in tally.complaints[known : known + 3]:
            again = f'make redteam ARGS="--family {family} --seed {seed} --networks 1"'
            tqdm.write(f"{family}, seed {seed}: {complaint[:600]}\n  again: {again}")
    return tally


def main() -> int:
    """Run the families in turn; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=IN_ALL, help="how many in all")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; fresh ones without it")
    parser.add_argument("--family", choices=FAMILIES, default=None, help="one family only")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the matrices are tiny
    lives.serve(lives.MANY)
    first = secrets.randbelow(10**9) if options.seed is None else options.seed
    print(f"seeds from {first} on")
    shares = {options.family: 1} if options.family else {family: share for family, (_, share) in FAMILIES.items()}
    networks = wrong = compared = 0
    for family, share in shares.items():
        count = options.networks * share // sum(shares.values())
        start = time.perf_counter()
        tally = attack(family, first, count)
        checks = sum(tally.checks.values()) - tally.checks["refused"]
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(tally.checks.items()))
        seconds = time.perf_counter() - start
        print(f"{family:13} {count:6,} networks {seconds:6.1f} s  {len(tally.complaints)} wrong  ({kinds})")
        networks, wrong, compared = networks + count, wrong + len(tally.complaints), compared + checks
    print(f"{networks:,} networks, {compared:,} comparisons: {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
