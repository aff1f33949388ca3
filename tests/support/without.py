"""The command line as if libraries were missing, in a process that runs one command or several."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class _Hides(PathFinder):
    """Finds every module but those named in `names`."""

    names: frozenset[str] = frozenset()

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] in cls.names:
            return None
        return PathFinder.find_spec(fullname, path, target)


def hide(names):
    """Make these modules impossible to find, as where they are not installed."""
    assert not set(names) & {name.partition(".")[0] for name in sys.modules}
    _Hides.names = frozenset(names)
    sys.meta_path[sys.meta_path.index(PathFinder)] = _Hides


def run(modules: tuple[str, ...], folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Return status, stdout and stderr of commands in a process where these modules are hidden."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps([modules, commands])],
        capture_output=True,
        text=True,
        cwd=folder,
        # A Ray of other tests is not to be joined.
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)},
    )
    *errors, last = re.split(r"^status (\d+)\n", done.stderr, flags=re.M)
    outs = done.stdout.split("\0\n")[:-1]
    assert len(outs) == len(commands), done.stderr
    assert not last
    return list(zip(map(int, errors[1::2]), outs, errors[::2], strict=True))


def main() -> None:
    modules, commands = json.loads(sys.argv[1])
    hide(modules)
    from pipemill.jobs.cli import app

    for command in commands:
        status = app.main(command)
        heavy = sorted({"torch", "transformers", "ray"} & set(sys.modules))
        print("\0", flush=True)
        print(f"imported: {heavy}\nstatus {status}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
