"""Which changes make a job another one."""

from __future__ import annotations

from pipemill.jobs.planning.fingerprint import find_changed_fields


def test_keyword_arguments_have_no_order_and_options_have_one():
    keywords, options = {"do_sample": False, "top_k": 3}, {"yes": "a", "no": "b"}
    old = {"parameters": {"generate_kwargs": keywords, "questions": options}}

    def turned(name):
        given = old["parameters"]
        return {"parameters": {**given, name: dict(reversed(given[name].items()))}}

    assert find_changed_fields(old, {"parameters": dict(reversed(old["parameters"].items()))}) == []
    assert find_changed_fields(old, turned("generate_kwargs")) == []
    assert find_changed_fields(old, turned("questions")) == ["parameters"]
