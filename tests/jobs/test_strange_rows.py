"""Rows that nobody expects: each is answered or a dead letter, and the others are as ever."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import pipemill

PLAIN = ["the mill", "red river [MASK]"]
STRANGE = {
    "null": None,
    "empty": "",
    "blank": " \t\n",
    "NUL": "a\x00b\x00[MASK]",
    "controls": "".join(map(chr, range(32))),
    "surrogates": "\ud800 and \udfff",
    "joined": "👩‍👩‍👧‍👦 é́́́ \u202e [MASK]",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "one word": "x" * 100_000,
    "only special": "[CLS][SEP][PAD]",
}
LARGE = "large town "
TASKS = {
    "text-classification": {},
    "feature-extraction": {},
    "token-classification": {"stride": 8},
    "zero-shot-classification": {"candidate_labels": ["river", "bread"]},
    "fill-mask": {},
}


@pytest.mark.parametrize("task", TASKS)
def test_texts(models, tmp_path, task):
    # 5 MB, or half of one where each of its windows has many answers.
    large = LARGE * (500_000 if task == "text-classification" else 50_000)
    texts = [PLAIN[0], *STRANGE.values(), large, PLAIN[1]]
    lines = [json.dumps({"n": n, "text": text}) for n, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    report = pipemill.run(
        task=task,
        model=models[task],
        input=str(tmp_path / "in.jsonl"),
        output={"path": str(tmp_path / "out"), "max_errors": None},
        parameters=TASKS[task],
        actors={"placement": "local"},
    )
    assert report.rows == len(texts)
    answered = ds.dataset(tmp_path / "out").to_table()["n"].to_pylist()
    letters = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    dead = [letter["n"] for letter in letters if letter["n"] is not None]
    unread = [letter for letter in letters if letter["stage"] == "read"]  # its columns are null
    assert len(answered) + len(letters) == len(texts)
    assert not set(answered) & set(dead)
    assert len(unread) <= 1, "only the surrogates are no text"
    assert len(texts) - 1 in answered
    assert 1 in dead, "null has no answer"
    assert all(letter["message"] for letter in letters)


@pytest.mark.parametrize("task", ["audio-classification", "automatic-speech-recognition"])
def test_sounds(models, tmp_path, task):
    wave = np.sin(np.arange(16_000) / 20).astype(np.float32)
    sounds = {
        "plain": wave,
        "NaN": np.full(16_000, np.nan, np.float32),
        "some NaN": np.where(np.arange(16_000) % 1000, wave, np.nan).astype(np.float32),
        "infinite": np.full(16_000, np.inf, np.float32),
        "nothing": np.empty(0, np.float32),
        "one sample": wave[:1],
        "loud": wave * 1e30,
        "last": wave[::-1],
    }
    column = [{"array": sound.tolist(), "sampling_rate": 16_000} for sound in sounds.values()]
    kind = pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())])
    table = pa.table({"n": range(len(column)), "audio": pa.array(column, kind)})
    pq.write_table(table, tmp_path / "in.parquet")
    report = pipemill.run(
        task=task,
        model=models[task],
        input=str(tmp_path / "in.parquet"),
        output={"path": str(tmp_path / "out"), "keep": ["n"], "max_errors": None},
        actors={"placement": "local"},
    )
    assert report.rows == len(sounds)
    answered = ds.dataset(tmp_path / "out").to_table()["n"].to_pylist()
    letters = ds.dataset(tmp_path / "out/_pipemill/dead-letter").to_table().to_pylist()
    assert sorted(answered + [letter["n"] for letter in letters]) == list(range(len(sounds)))
    assert {0, len(sounds) - 1} <= set(answered)
    assert list(sounds).index("nothing") in {letter["n"] for letter in letters}
    assert all(letter["message"] for letter in letters)
