"""Run a job on a cluster that is elsewhere, through Ray's job API: `pipemill submit`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import os
import secrets
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pipemill
from pipemill.errors import ConfigError

from .config.check_arguments import check_count, check_on_changed
from .config.job import Job
from .config.load import merge_config
from .config.sections import Sections, takes_sections
from .config.yaml_text import read_mapping
from .execution.progress import log
from .submission import check_cluster
from .submission.job_client import connect, explain_submission, submit_once
from .submission.job_text import JobText, write_job_text
from .submission.shipped_code import FOLDERS, copy_package, list_requirements
from .submission.submission import FIRST, RETRIES, Submission

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What a working directory never brings, beside what its .gitignore names.
_EXCLUDES = [".git", ".venv", "venv", "__pycache__", "_pipemill", ".ipynb_checkpoints"]
_PAUSE_S = 5  # before a run that failed is started again
# Without it, `python -m` would be the first to miss pipemill, with a less helpful message.
_HAS_PIPEMILL = (
    f"""python -c 'import pipemill; assert pipemill.__version__ == "{pipemill.__version__}"' """
    f"2>/dev/null || {{ echo 'pipemill: the cluster has no pipemill {pipemill.__version__}: "
    "install it on every node, or let this one travel (--code here)' >&2; exit 2; }\n"
)


@takes_sections
def submit(
    config: str | os.PathLike[str] | Mapping[str, Any] | Job | None = None,
    *,
    address: str,
    working_dir: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    retries: int = 0,
    code: Literal["here", "cluster"] = "here",
    on_changed: Literal["error", "reprocess"] = "error",
    settings: list[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    **sections: Unpack[Sections],
) -> Submission:
    """Submit a job to a Ray cluster, and return without waiting for it.

    The job is checked here as far as that needs no input, and again on the cluster. Its local
    paths become absolute ones: every node must find them there. `${NAME}` in a config is filled in
    on the cluster.

    Args:
        config: A YAML file, a mapping or a `Job`, as for `run`.
        address: Of the cluster's job API, such as "http://HEAD:8265".
        working_dir: A folder that travels along, for modules that the job imports. What its
            .gitignore names stays here.
        env: Variables for the job's environment. Ray stores them with the job.
        retries: How often a run that failed is started again. It resumes.
        code: "here" sends this pipemill along; "cluster" takes the one that is installed there,
            which must have the same version.
        on_changed: As for `run`.
        settings: "output.rows_per_part=300" and the like, over the config.
        columns: Short for `input.columns`.
        sections: As for `run`.

    Returns:
        The job on the cluster, to wait for, to look at and to stop.

    Raises:
        ConfigError: The job or the address is wrong, the token is refused, or the cluster's Ray
            does not fit.
    """
    _check_arguments(address, working_dir, env or {}, retries, code)
    check_on_changed(on_changed)
    env = dict(env or {})
    data, where = merge_config(config, settings or [], columns or {}, sections, read_mapping)
    job = write_job_text(data, where, env)
    client = connect(address)
    _explain_what_travels(job)
    with tempfile.TemporaryDirectory(prefix="pipemill-") as folder:
        runtime: dict[str, Any] = {"env_vars": env} if env else {}
        if code == "here":
            runtime["py_modules"] = [str(copy_package(Path(folder)))]
        if working_dir is not None:
            excludes = [*_EXCLUDES, *find_below(Path(working_dir), job.local_paths)]
            runtime |= {"working_dir": os.fspath(working_dir), "excludes": excludes}
        name = f"pipemill-{secrets.token_hex(6)}"
        with explain_submission(client.get_address()):
            submit_once(
                client,
                name,
                entrypoint=_write_command(job, retries, code, on_changed),
                runtime_env=runtime,
                metadata={FIRST: name, RETRIES: str(retries)},
            )
    return Submission(name, client.get_address(), job.output)


def _check_arguments(
    address: str,
    working_dir: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    retries: int,
    code: str,
) -> None:
    if not isinstance(address, str):
        raise ConfigError(f"address must be a text such as http://HEAD:8265, not {address!r}")
    if not isinstance(env, Mapping):
        raise ConfigError(f"env must map texts to texts, as in {{'NAME': 'value'}}, not {env!r}")
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise ConfigError(f"env must map texts to texts, and {name!r} is no such pair")
        if not name or "=" in name or "\0" in name + value:
            raise ConfigError(f"env: {name!r} can't be the name of a variable, or its value")
    check_count(0, retries=retries)
    if code not in ("here", "cluster"):
        raise ConfigError(f'code must be "here" or "cluster", not {code!r}')
    if working_dir is not None and not isinstance(working_dir, str | os.PathLike):
        raise ConfigError(f"working_dir must be the path of a folder, not {working_dir!r}")
    if working_dir is not None and not os.path.isdir(working_dir):
        raise ConfigError(f"working_dir {os.fspath(working_dir)} is not a folder")


def find_below(folder: Path, paths: Iterable[str]) -> Iterator[str]:
    """Return the job's data below a folder, as patterns: they are read where they are.

    Ray applies the patterns to pipemill's folders, too, so what has such a name travels.
    """
    for path in map(Path, paths):
        if path.is_relative_to(folder.resolve()) and path != folder.resolve():
            relative = path.relative_to(folder.resolve())
            if relative.parts[0] not in FOLDERS:
                yield f"/{relative.as_posix()}"


def _explain_what_travels(job: JobText) -> None:
    if job.local_paths:
        log(f"Every node must find these paths where they are here: {', '.join(job.local_paths)}")
    if job.variables:
        names = ", ".join(job.variables)
        log(f"The cluster must set what the config names, or env must send it: {names}")


def _write_command(job: JobText, retries: int, code: str, on_changed: str) -> str:
    """Return the shell's lines that check the cluster and run the job there."""
    end = "END"
    while end in job.text:
        end += "_END"
    flags = "" if on_changed == "error" else f" --on-changed {on_changed}"
    run = f"python -m pipemill run /dev/stdin{flags} <<'{end}'\n{job.text}{end}\n"
    return (
        (_HAS_PIPEMILL if code == "cluster" else "")
        + f"python -m {check_cluster.__name__} {shlex.join(list_requirements())} || exit 2\n"
        + (_write_loop(run, retries) if retries else run)
    )


def _write_loop(run: str, retries: int) -> str:
    return (
        f"left={retries}\n"
        f"while :; do\n{run}"
        "status=$?\n"
        "case $status in 0|2|130) exit $status;; esac\n"
        '[ "$left" -gt 0 ] || exit 1\n'
        "left=$((left - 1))\n"
        f'echo "pipemill: exit status $status; starting again in {_PAUSE_S} s" >&2\n'
        f"sleep {_PAUSE_S}\n"
        "done\n"
    )
