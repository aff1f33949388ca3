"""Other threads of a process load models while pipemill has replaced functions of transformers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from pipemill.pipelines.loading.missing_weights import record_loading
from pipemill.pipelines.loading.weights_fit import load_without_values
from pipemill.pipelines.shared_patch import SharedPatch


def in_another_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture
def load(models):
    from transformers import BertForSequenceClassification

    return lambda: BertForSequenceClassification.from_pretrained(models["text-classification"])


def test_another_thread_loads_a_model_with_its_values(load):
    """Those that no file holds, too, such as the numbers of places."""

    class Interrupted:
        @staticmethod
        def from_pretrained(*_, **__):
            return in_another_thread(load), {}

    loaded, _ = load_without_values(Interrupted, None, {})
    usual = dict(load().named_buffers())
    assert usual
    for name, values in loaded.named_buffers():
        assert values.equal(usual[name]), name


def test_what_another_thread_loads_is_not_recorded(load):
    with record_loading() as found:
        in_another_thread(load)
        assert not found
        model = load()
    assert [one for one, _ in found] == [model]


def test_functions_are_usual_again_when_the_last_thread_ends():
    library = SimpleNamespace(answer=lambda: "usual")
    usual = library.answer
    patch = SharedPatch(lambda: [(library, "answer", lambda usual: lambda: f"not {usual()}")])
    inside, ends = threading.Event(), threading.Event()

    def first() -> None:
        with patch.applied():
            inside.set()
            ends.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with patch.applied():
        ends.set()
        thread.join()
        assert library.answer() == "not usual"
    assert library.answer is usual


def test_a_library_without_the_function_is_left_alone():
    library = SimpleNamespace(answer=1)
    patch = SharedPatch(lambda: [(library, "answer", str), (library, "missing", str)])
    for _ in range(2):
        with pytest.raises(KeyError), patch.applied():
            pass
    assert library.answer == 1
