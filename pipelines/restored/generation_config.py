"""The generation settings of restored pipelines, in transformers 4.57's order of preference.

In transformers 5 a model's settings win over a pipeline's defaults. In 4.57 the pipeline's win if
they differ from the global ones: four beams and 256 new tokens, even if `generation_config.json`
has other values. Only its `max_length`, if there is one, replaces the 256 new tokens. Settings for
the task in an old `config.json` (`task_specific_params`) win over both, the caller's over all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, Pipeline

_GLOBAL = GenerationConfig._get_default_generation_params()
# If a model was saved before 4.50, a caller's `generation_config` gets only these from it.
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


class GeneratingPipeline(Pipeline):
    """A pipeline that calls `generate`; `generation_config` holds its settings.

    `generate` adds the settings of the call; a `generation_config` in the call replaces it.
    """

    _pipeline_calls_generate = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.model.can_generate():
            return
        parameters = dict(self._generate_kwargs)
        callers_config = parameters.pop("generation_config", None)
        specific = dict(
            (_get_config_value(self.model, "task_specific_params") or {}).get(self.task, {})
        )
        self.prefix = specific.pop("prefix", _get_config_value(self.model, "prefix"))
        config = _merge_defaults(self._default_generation_config, self.model, parameters)
        config.update(**specific)
        self.generation_config = callers_config or config
        if self.tokenizer is not None and self.generation_config.pad_token_id is None:
            self.generation_config.pad_token_id = self.tokenizer.pad_token_id

    def assistants(self) -> dict[str, Any]:
        """Return the parameters of `generate` for the assistant model, if the pipeline has one."""
        parameters = {}
        if getattr(self, "assistant_model", None) is not None:
            parameters["assistant_model"] = self.assistant_model
        if getattr(self, "assistant_tokenizer", None) is not None:
            parameters["tokenizer"] = self.tokenizer
            parameters["assistant_tokenizer"] = self.assistant_tokenizer
        return parameters

    def generate(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        """Generate from `inputs`, with the call's `parameters` over the pipeline's."""
        parameters = dict(parameters)
        config = copy.deepcopy(parameters.pop("generation_config", None) or self.generation_config)
        _fill_unset(config, self.model)
        # The inputs may hold settings, too, such as the token of the language to translate to.
        others = config.update(**inputs, **parameters)
        # transformers 5 fills what is unset in `config` from the model's settings: give the model
        # the same ones. A shallow copy, because the model may be generating in another thread.
        model = copy.copy(self.model)
        model.generation_config = config
        return model.generate(generation_config=config, **others)

    def decode(self, token_ids: Any, clean_up: bool | None = None) -> str:
        """Return the text without special tokens.

        With `clean_up`, spaces before punctuation are removed. transformers 5 would do that for
        some tokenizers only. None leaves it to the tokenizer's settings.
        """
        text = self.tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if clean_up is None:
            clean_up = self.tokenizer.clean_up_tokenization_spaces
        return self.tokenizer.clean_up_tokenization(text) if clean_up else text


def _merge_defaults(
    defaults: GenerationConfig, model: Any, parameters: Mapping[str, Any]
) -> GenerationConfig:
    """Merge a pipeline's defaults, the model's settings where those are unset, and parameters."""
    config = copy.deepcopy(defaults)
    _copy_unset(config, model.generation_config)
    config.update(**parameters)
    unset_length = _is_unset("max_length", config.max_length)
    if not unset_length and config.max_new_tokens == defaults.max_new_tokens:
        config.max_new_tokens = None
    return config


def _fill_unset(config: GenerationConfig, model: Any) -> None:
    """Fill what is unset in `config` from the model's settings, as `generate` did in 4.57."""
    model_config = model.generation_config
    if not _is_before_4_50(model_config):
        _copy_unset(config, model_config)
        return
    for key in _TOKENS:
        if getattr(config, key) is None:
            setattr(config, key, getattr(model_config, key))


def _copy_unset(config: GenerationConfig, model_config: GenerationConfig) -> None:
    for key, value in vars(model_config).items():
        if key.startswith("_") or key == "transformers_version":
            continue
        if not _is_unset(key, value) and _is_unset(key, getattr(config, key, None)):
            setattr(config, key, value)
    if config.temperature == 0.0:
        config.do_sample = False


def _is_unset(key: str, value: Any) -> bool:
    """Return whether a setting is unset. 4.57 concluded that from its value alone."""
    return value is None or value == _GLOBAL.get(key)


def _is_before_4_50(config: GenerationConfig) -> bool:
    version = getattr(config, "transformers_version", None) or "5.0"
    return tuple(map(int, version.split(".")[:2])) < (4, 50)


def _get_config_value(model: Any, name: str) -> Any:
    return getattr(model.config, name, None)
