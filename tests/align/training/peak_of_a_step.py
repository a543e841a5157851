"""Print the estimated and the measured peak, in bytes, of a process that does one step of the run given."""

from __future__ import annotations

import resource
import sys

from align.cli.doctor import patient_of, read_runs


def main(words: list[str]) -> None:
    (run,) = read_runs(words)
    patient = patient_of(run)
    expected = patient.memory.peak
    assert patient.trial.result.tokens
    unit = 1 if sys.platform == "darwin" else 1024
    print(expected, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    main(sys.argv[1:])
