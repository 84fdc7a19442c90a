"""Processes that are killed, disks that fail, power that is lost, two writers, wrong clocks: is anything lost by it?

Each family lets a tiny `train`, `run` or `distance` be stopped, starts the same command again until it ends, and
compares what it leaves with what one leaves that nothing disturbed.
"""

import errno
import os
import random
import resource
import signal
import threading
from pathlib import Path
from typing import Any

from red_team.disk import Failing, Killing, Ledger, put
from red_team.lives import COMMANDS, Life, age, called, leave, left, live, lived, place, whole
from red_team.tally import Tally

YEARS = (-50, -1, 0, 0, 1, 100)
"""How far off the clocks of these machines are."""

FAILURES = (errno.ENOSPC, errno.EROFS, errno.EIO)
"""The disk is full, read-only or broken."""


def kills(seed: int, tally: Tally) -> None:
    """Killed at a random moment, or before a random operation on a file, and again on the way, under wrong clocks."""
    draw = random.Random(seed)
    command = list(COMMANDS)[seed % len(COMMANDS)]
    known = whole(command)
    with place() as folder:
        for _ in range(draw.choice((1, 1, 2))):
            if draw.random() < 0.5:
                stop: dict[str, Any] = {"before": Killing(draw.randint(1, known.operations))}
            else:
                stop = {"moment": draw.uniform(0.01, 1) * known.processor}
            life = lived(live, command, folder, stop.get("before"), draw.choice(YEARS), stop.get("moment", 0))
            ended = life.code in (-signal.SIGKILL, -signal.SIGPROF)
            tally.expect("kills" if ended else "in time", ended or life.code == 0, command, life.said)
            age(folder, draw.choice(YEARS))
        _goes_on(command, folder, tally, draw.choice(YEARS))


def failures(seed: int, tally: Tally) -> None:
    """A disk that is full, read-only or broken, for once or from then on; or that takes no file above a size."""
    draw = random.Random(seed)
    command = list(COMMANDS)[seed % len(COMMANDS)]
    with place() as folder:
        if draw.random() < 0.2:
            life = lived(_limited, command, folder, int(10 ** draw.uniform(0, 5.5)))
        else:
            number, lasting = draw.choice(FAILURES), draw.random() < 0.5
            life = lived(live, command, folder, Failing(draw.randint(1, whole(command).operations), number, lasting))
        tally.expect("sentences", life.code == 0 or is_a_sentence(life), command, seed, life.code, life.said)
        _goes_on(command, folder, tally)


def _limited(command: str, folder: Path, size: int) -> None:
    """Files end at a size, in the midst of what is written, in whatever language."""
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    live(command, folder)


def is_a_sentence(life: Life) -> bool:
    """Whether a process that failed said what the matter is and what to do, and nothing raw."""
    last = life.said.strip().rpartition("\n")[2]
    raw = any(words in life.said for words in ("Traceback", "[Errno"))
    return life.code == 2 and last.startswith("tightlip: ") and ": " in last[10:] and not raw


def blackouts(seed: int, tally: Tally) -> None:
    """The power is lost before every operation on a file: names are of whole files; and some of these states go on."""
    draw = random.Random(seed)
    command = list(COMMANDS)[seed % len(COMMANDS)]
    with place() as folder, place() as after:
        life = lived(_recorded, command, folder, after, draw.randrange(whole(command).operations), draw.random())
        tally.expect("blackouts", life.code == 0, command, seed, life.said)
        _goes_on(command, after, tally)


def _recorded(command: str, folder: Path, after: Path, at: int, share: float) -> None:
    """The command, with the power lost everywhere; of the states before an operation one is put into a folder."""
    wrong = list[str]()

    def seen(ledger: Ledger) -> None:
        trees = list(ledger.states())
        wrong.extend(f"{path} is not whole" for tree in trees for path in ledger.lost(tree))
        if len(ledger.operations) == at:
            put(trees[int(share * len(trees))], after)

    ledger = Ledger(folder, seen)
    code = called(command, folder, ledger)
    wrong += [f"{path} can be lost although the command has ended" for path in ledger.absent()]
    leave(code or min(len(wrong), 1), "; ".join(wrong))


def writers(seed: int, tally: Tally) -> None:
    """Two at the same time in one folder: one writes, the other is told so, or comes when all is done."""
    draw = random.Random(seed)
    command = list(COMMANDS)[seed % len(COMMANDS)]
    with place() as folder:
        (folder / "runs" / "cells").mkdir(parents=True)
        lives: list[Life] = []
        both = [threading.Thread(target=lambda: lives.append(lived(live, command, folder))) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        codes = sorted(life.code for life in lives)
        told = all(life.code == 0 or "is being written by" in life.said for life in lives)
        tally.expect("writers", codes in ([0, 0], [0, 2]) and told, command, seed, [life.said for life in lives])
        _goes_on(command, folder, tally, draw.choice(YEARS))


def _goes_on(command: str, folder: Path, tally: Tally, years: float = 0) -> None:
    """Started again, it ends with what one leaves that nothing disturbed."""
    life = lived(live, command, folder, None, years)
    tally.expect("resumed", life.code == 0, command, life.code, life.said)
    if life.code:
        return
    found, known = left(command, folder), whole(command).left
    different = sorted(name for name in found.keys() | known.keys() if found.get(name, "-") != known.get(name, "-"))
    tally.expect("identical", not different, command, different)
