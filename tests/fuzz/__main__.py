"""Thousands of hostile files, in monitored processes.

    python -m tests.fuzz --files 20000 --seed 1                 # one line of JSON; code 1 if anything was found
    python -m tests.fuzz --files 1 --seed 1 --first 4711        # one of them again
    python -m tests.fuzz --files 2000 --seed 1 --keep found/    # what was found, and what was said of it

No traceback, no file over 20 s or 2 GiB, no output of a wrong size, nothing left over, the code as documented, and the
sound picture beside it to the bit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.finding import Finding
from tests.fuzz.running import Case, case
from tests.fuzz.worker import Worker

_TOGETHER = 20  # files in one folder, and one by one where something is found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the files that something was found of")
    args = parser.parse_args()
    began = time.monotonic()
    numbers = iter(range(args.first, args.first + args.files))
    counts: Counter[str] = Counter()
    workers = [Worker(args.seed) for _ in range(args.jobs)]
    for worker in workers:
        worker.take(list(itertools.islice(numbers, _TOGETHER)))
    done = 0
    while any(worker.numbers for worker in workers):
        for worker in workers:
            answer = worker.answer()
            if answer is None:
                continue
            done += len(answer)
            for number, found in answer.items():
                counts.update(finding.kind for finding in found)
                if found:
                    _report(case(args.seed, number), number, found, args.keep)
            if done % 500 < _TOGETHER:
                sys.stderr.write(f"{done} of {args.files}: {dict(counts)}\n")
            worker.take(list(itertools.islice(numbers, _TOGETHER)))
    for worker in workers:
        worker.end()
    seconds = time.monotonic() - began
    result = {"case": "fuzz", "files": done, "seed": args.seed, "first": args.first, "found": dict(counts)}
    sys.stdout.write(json.dumps({**result, "seconds": round(seconds)}) + "\n")
    return 1 if counts else 0


def _report(one: Case, number: int, found: list[Finding], keep: Path | None) -> None:
    lines = [f"{number} ({one.origin}): {finding.kind}: {finding.detail}" for finding in found]
    for line in lines:
        sys.stderr.write(f"{line.splitlines()[0][:100]} … {line.strip().splitlines()[-1][:200]}\n")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{number}{one.suffix}").write_bytes(one.data)
        (keep / f"{number}.txt").write_text("\n\n".join(lines), encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main())
