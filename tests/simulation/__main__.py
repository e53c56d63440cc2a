"""``python -m tests.simulation``: many histories, or one again by its seed."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.history import ground, run


def main() -> int:
    """Returns 1 where a history ended as it must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1, help="seed of the first one; each next one counts up")
    parser.add_argument("--seed", type=int, help="one history alone, with what led to its end")
    parser.add_argument("--most", type=int, default=5, help="end after so many failures")
    options = parser.parse_args()
    failed, used, started = 0, 0.0, time.monotonic()
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.histories)
    with ground() as made:
        for seed in seeds:
            history = run(made, seed)
            used += history.seconds
            if options.seed is not None:
                print("\n".join(history.trace))
            if options.seed is None and seed % 100 == 0:
                print(f"to seed {seed}: {used:.0f} s of CPU", file=sys.stderr, flush=True)
            if history.complaints:
                failed += 1
                print(f"{history}\n  again: python -m tests.simulation --seed {seed}", flush=True)
                if failed >= options.most:
                    break
    count = seed - seeds[0] + 1
    print(f"{count} histories, {failed} failed, {count / used:.1f} a second of CPU, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
