"""Check that a cluster has what a job needs: `python -m …` runs this there, before the job.

Arguments: the libraries, as "NAME>=VERSION". Only the standard library is sure to be there.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile


def find_problem(requirement: str) -> str:
    """Return what is wrong with an installed library, or "" if nothing is."""
    name, _, wanted = requirement.partition(">=")
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{requirement} is missing"
    fits = _parse_numbers(found) >= _parse_numbers(wanted)
    return "" if fits else f"{requirement} is needed, and {found} is installed"


def _parse_numbers(text: str) -> list[int]:
    """Return a version's numbers, up to the first part that is none, such as 0rc1."""
    return [int(part) for part in takewhile(str.isdecimal, text.partition("+")[0].split("."))]


def _advise(problems: list[str]) -> str:
    if any(problem.startswith("ray>") and problem.endswith(" missing") for problem in problems):
        return (
            "It is not the Python of the cluster's Ray, but the first on the PATH of its head: "
            "activate Ray's environment there before `ray start`"
        )
    return "Install it on every node"


def main(requirements: list[str]) -> int:
    problems = [problem for one in requirements if (problem := find_problem(one))]
    if problems:
        print(
            f"pipemill: the cluster's Python ({sys.executable}) lacks what the job needs: "
            f"{'; '.join(problems)}. {_advise(problems)}",
            file=sys.stderr,
        )
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
