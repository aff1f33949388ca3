"""The command line as if libraries were missing: `python -m tests.support.without PIL,av run …`."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder


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


def main() -> int:
    hide(sys.argv[1].split(","))
    from pipemill.jobs.cli import app

    status = app.main(sys.argv[2:])
    heavy = sorted({"torch", "transformers", "ray"} & set(sys.modules))
    print(f"imported: {heavy}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
