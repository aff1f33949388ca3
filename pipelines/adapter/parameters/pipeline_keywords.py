"""A job's parameters, and those of its rows, as keywords of a pipeline's three functions."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pipemill.actors.task import Loaded

from ...pipeline_task import PipelineTask
from ...text.tokenizer_keywords import check_tokenizer_keywords
from ..chat_text import check_chat_template
from ..row_values import explain_own_value, make_plain_value
from .parameter_trial import check_parameters_work, find_keywords
from .user_parameters import check_parameters, list_row_parameters

Keywords = dict[str, Any]

_AS_GIVEN = ("any", "record")


class PipelineKeywords:
    """The parameters of a declared task with its pipeline.

    Attributes:
        given: the job's parameters as the pipeline takes them.
        own: names of parameters that a row may have as a column, and that go to the pipeline.

    Raises:
        ValueError: a parameter that the pipeline can't take: it would fail for every row.
    """

    def __init__(self, declared: PipelineTask, loaded: Loaded) -> None:
        self.declared, self.loaded, self.pipeline = declared, loaded, loaded.pipeline
        self.kinds = {column.name: column.kind for column in declared.inputs}
        self.given = {**declared.defaults, **declared.to_pipeline_parameters(loaded.parameters)}
        self.own = declared.row_parameters() | list_row_parameters(declared, loaded.pipeline)
        if declared.any_parameter:
            asked = self.given.keys() - declared.own_parameters
            check_parameters({k: self.given[k] for k in asked}, self.own, self.pipeline)
        # What is null inside such a parameter means something: it is taken as it is.
        for name in (c.name for c in declared.inputs if c.parameter and c.kind not in _AS_GIVEN):
            if self.given.get(name) is not None:
                self.given[name] = make_plain_value(self.given[name], self.kinds[name])
        self.of = lru_cache(maxsize=64)(self._find_keywords)
        # What only rows have is none of these values: it is checked for each row.
        by_row = self.own.intersection(loaded.columns)
        values = declared.with_defaults(self.given).items()
        at_load = {n: v for n, v in values if v is not None or n not in by_row}
        declared.suits(at_load, loaded.pipeline)
        reads_chats = self.kinds.get("messages") == "messages" and "messages" in loaded.columns
        if reads_chats and not declared.any_parameter:
            check_chat_template(loaded.pipeline, loaded.parameters)
        if not declared.any_parameter:
            check_tokenizer_keywords(
                loaded.parameters, loaded.pipeline, reads_chats, loaded.columns
            )
        check_parameters_work(declared, loaded)
        self.of("{}")

    def settings(self, values: dict[str, Any]) -> str:
        """Return a row's own parameters as a text that is equal where they are.

        values: of the row's columns, by name; others may be among them.
        """
        own = {
            name: self._take_own_value(name, values[name])
            for name in sorted(self.own.intersection(self.loaded.columns, values))
        }
        return json.dumps(own)  # what is in a mapping keeps its order, which may be read, too

    def _take_own_value(self, name: str, value: Any) -> Any:
        plain, parameter = (
            make_plain_value(value, self.kinds[name]),
            self.declared.parameters.get(name),
        )
        return plain if parameter is None else parameter.validate(name, plain)

    def _find_keywords(self, settings: str) -> tuple[Keywords, ...]:
        """Return the keywords of preprocess, _forward and postprocess for a row's settings."""
        return find_keywords(self.declared, self.pipeline, {**self.given, **json.loads(settings)})

    def check_row(self, row: dict[str, Any]) -> None:
        """Raise ValueError for values of a row's own parameters that can't be right."""
        named = [
            c.name for c in self.declared.inputs if c.parameter and row.get(c.name) is not None
        ]
        own = {name: make_plain_value(row[name], self.kinds[name]) for name in named}
        if not own:
            return
        try:
            for name, value in own.items():
                if name in self.declared.parameters:
                    self.declared.parameters[name].validate(name, value)
            values = self.declared.with_defaults({**self.given, **own})
            self.declared.checks(values)
            self.declared.suits(values, self.pipeline)
        except ValueError as error:
            raise explain_own_value(error, own) from None
