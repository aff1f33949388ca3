"""Speech models with weights for each language, as MMS has them."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import torch
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.media import decode_audio
from safetensors.torch import save_file

from tests.support import tiny_audio

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "|"]
LETTERS = {"eng": "abcdefghijkl", "fra": "mnopqrstuvwxyz"}
SOUNDS = tiny_audio.sounds()[:4]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a folder with a model of two languages, of which German has a vocabulary only."""
    folder = tmp_path_factory.mktemp("mms")
    tiny_audio.ctc(folder / "one")
    vocabulary = {
        language: {piece: i for i, piece in enumerate([*SPECIAL, *letters])}
        for language, letters in {**LETTERS, "deu": "abc"}.items()
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    words = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), target_lang="eng")
    words.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder / "one")
    config.adapter_attn_dim = 4
    torch.manual_seed(3)
    loaded = transformers.Wav2Vec2ForCTC(config)
    loaded.save_pretrained(folder)
    for language, letters in LETTERS.items():
        count = len(SPECIAL) + len(letters)
        weights = {n: torch.randn_like(one) / 2 for n, one in loaded._get_adapters().items()}
        weights["lm_head.weight"] = torch.randn(count, config.hidden_size)
        weights["lm_head.bias"] = torch.randn(count)
        save_file(weights, folder / f"adapter.{language}.safetensors")
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def _load(path, **parameters):
    return LoadTask(
        task="automatic-speech-recognition",
        model=Model(path=str(path), dtype="float32"),
        columns=(("audio", "audio"),),
        parameters=json.dumps(parameters),
    )()


@pytest.mark.parametrize("language", ["eng", "fra"])
def test_answers_are_those_of_transformers_in_the_language(model, language):
    plain = transformers.pipeline(
        "automatic-speech-recognition",
        model=str(model),
        model_kwargs={"target_lang": language, "ignore_mismatched_sizes": True},
    )
    expected = [plain(decode_audio(sound, 16_000))["text"] for sound in SOUNDS]
    stages = _load(model, target_lang=language)
    found = stages.process(Batch(pa.table({"audio": SOUNDS}))).results["text"].to_pylist()
    assert found == expected
    assert len(set(found)) > 2
    assert set("".join(found)) & set(LETTERS[language])
    without = _load(model).process(Batch(pa.table({"audio": SOUNDS}))).results["text"].to_pylist()
    assert found != without


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("fre", "target_lang: the model has no language 'fre'; there are fra"),
        ("zzz", "has no language 'zzz'; there are deu, eng, fra"),
        ("deu", "target_lang: the model's folder has no adapter.deu.safetensors"),
    ],
)
def test_a_language_that_is_not_there_is_named_with_those_that_are(model, language, message):
    with pytest.raises(ValueError, match=message):
        _load(model, target_lang=language)


@pytest.mark.parametrize("which", ["automatic-speech-recognition", "whisper"])
def test_a_model_of_one_language_is_none(models, which):
    with pytest.raises(ValueError, match="target_lang is for models with weights of several lang"):
        _load(models[which], target_lang="eng")
