"""What a notebook shows: mistakes and interrupts in one line, never a traceback; a bar."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

import pipemill
from pipemill.errors import explain_interrupt
from tests.support import light

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(cwd=str(ROOT), kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def outputs(client, message):
    """What the cell shows, until it is done."""
    shown = []
    while True:
        got = client.get_iopub_msg(timeout=60)
        if got["parent_header"].get("msg_id") != message:
            continue
        if got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
            return shown
        shown.append((got["msg_type"], got["content"]))


def traceback_of(shown):
    (error,) = [content for kind, content in shown if kind == "error"]
    return error["traceback"], error["ename"]


# The first in this kernel: a library warns once, when it is imported.
def test_the_bar_moves_twice_a_second_and_nothing_asks_for_ipywidgets(kernel, tmp_path):
    _, client = kernel
    wanted = light.job(tmp_path, [f"text {i}" for i in range(300)])
    (tmp_path / "job.yaml").write_text(json.dumps(wanted))
    run = f"""
import os
import re
import pipemill
from tests.support import light
os.environ["LIGHT_SLOW"] = "0.01"
light.install()
verb = pipemill.run
import tqdm.auto  # as transformers does
print(verb("{tmp_path}/job.yaml").done)
"""
    started = time.monotonic()
    shown = outputs(client, client.execute(run))
    seconds = time.monotonic() - started  # three, or more on a busy machine
    text = "".join(content["text"] for kind, content in shown if kind == "stream")
    # The bar's own newline, on another stream, comes before or after what is printed.
    assert re.search(r"\]\n?300\n", text)
    assert 4 <= text.count(" rows/s, 0 dead letters]") <= 3 + 2 * seconds
    assert "Warning" not in text


def test_a_mistake_is_one_line(kernel):
    _, client = kernel
    shown = outputs(client, client.execute("import pipemill; pipemill.run('nope.yaml')"))
    lines, name = traceback_of(shown)
    assert name == "ConfigError"
    assert lines == ["ConfigError: can't read the config nope.yaml: No such file or directory"]
    shown = outputs(client, client.execute("pipemill.verify('/no/such/output')"))
    ((line,), _) = traceback_of(shown)
    assert line.startswith("ConfigError: /no/such/output is not an output of pipemill")


def test_an_interrupt_is_one_line_and_the_next_cell_goes_on(kernel, tmp_path):
    manager, client = kernel
    wanted = light.job(tmp_path, [f"text {i}" for i in range(60)])
    (tmp_path / "job.yaml").write_text(json.dumps(wanted))
    slow = "import os; os.environ['LIGHT_SLOW'] = '{}'\n"
    run = f"from tests.support import light; light.install(); pipemill.run('{tmp_path}/job.yaml')"
    outputs(client, client.execute("import pipemill, pipemill.jobs.run"))
    message = client.execute(slow.format(0.1) + run)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    manager.interrupt_kernel()
    lines, name = traceback_of(outputs(client, message))
    assert (name, lines) == (
        "RunInterrupted",
        ["RunInterrupted: interrupted; run again to resume"],
    )
    assert 0 < len(list((tmp_path / "out").glob("part-*"))) < 6
    shown = outputs(client, client.execute(slow.format(0) + run))
    (html,) = [c["data"]["text/html"] for kind, c in shown if kind == "execute_result"]
    assert "60 (60 done, 0 dead)" in html


def test_a_failed_run_is_its_message(kernel, tmp_path):
    _, client = kernel
    wanted = light.job(tmp_path, ["bad3", "bad4"], output={"max_errors": 1.0})
    (tmp_path / "job.yaml").write_text(json.dumps(wanted))
    run = f"from tests.support import light; light.install(); pipemill.run('{tmp_path}/job.yaml')"
    lines, name = traceback_of(outputs(client, client.execute("import pipemill; " + run)))
    assert (name, len(lines)) == ("RunError", 1)
    assert lines[0].startswith("RunError: all 2 rows failed (2 × regroup: ValueError: bad3 is not")


def test_a_script_still_has_its_traceback(tmp_path):
    (tmp_path / "script.py").write_text("import pipemill\npipemill.run('nope.yaml')\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert 'script.py", line 2' in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_an_interrupt_that_says_more_is_left_as_it_is():
    class Other(KeyboardInterrupt):
        pass

    with pytest.raises(Other), explain_interrupt():
        raise Other
    with pytest.raises(pipemill.RunInterrupted, match="run again to resume"):  # noqa: SIM117
        with explain_interrupt():
            raise KeyboardInterrupt
    assert issubclass(pipemill.RunInterrupted, KeyboardInterrupt)
    assert issubclass(pipemill.ModelError, pipemill.ConfigError)
    assert issubclass(pipemill.ModelError, pipemill.RunError), "as loading errors always were"
