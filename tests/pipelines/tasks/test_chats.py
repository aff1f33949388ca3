"""Models that see or hear and write, and models that decide, against plain transformers."""

from __future__ import annotations

import base64
import copy
import io
import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import transformers
from PIL import Image
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.media import decode_audio

import pipemill
from tests.support import tiny, tiny_audio
from tests.support.row_by_row import assert_rows, run

SEE, HEAR = "image-text-to-text", "any-to-any"
TEXTS = [tiny.sentence(words, words) for words in (1, 5, 12, 5)]
GREEDY = {"max_new_tokens": 6, "return_full_text": False}
SOUNDS = [tiny_audio.wav(seconds, i) for i, seconds in enumerate((0.3, 1.5, 0.8, 1.9))]


@lru_cache(maxsize=4)
def plain(task, model):
    return transformers.pipeline(task, model=model, device="cpu")


def png(seed):
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 255, (18 + 9 * seed, 40, 3), dtype=np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


PICTURES = [png(seed) for seed in range(4)]


def chat(text, **part):
    kind = next(iter(part), None)
    parts = [{"type": kind, **part}] if part else []
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_images_with_texts_and_texts_alone(models):
    texts = [f"<media> {text}" for text in TEXTS] + ["no picture", "<media> broken", None]
    pictures = [*PICTURES, None, b"no picture", PICTURES[0]]
    batch = run(SEE, models[SEE], {"image": pictures, "text": texts}, GREEDY)
    truth = plain(SEE, models[SEE])
    expected = [
        truth(images=opened(data), text=text, **GREEDY)[0]["generated_text"]
        for data, text in zip(PICTURES, texts, strict=False)
    ]
    expected.append(truth(text="no picture", **GREEDY)[0]["generated_text"])
    assert_rows(batch, [*({"generated_text": one} for one in expected), "expand", "expand"], 6)
    # But for the text alone, which is the only one of its kind, all are written beside each other.
    assert batch.stats["micro_batches"] == 1


@pytest.mark.parametrize("parameters", [GREEDY, {"max_new_tokens": 5}])
def test_an_image_beside_a_text_is_a_message_for_a_model_that_reads_chats(models, parameters):
    """But for a text that has the model's own mark for the image."""
    batch = run(
        SEE, models[SEE], {"image": [*PICTURES, None], "text": [*TEXTS, "none"]}, parameters
    )
    truth = plain(SEE, models[SEE])
    expected = []
    for data, text in zip(PICTURES, TEXTS, strict=True):
        (told,) = truth(text=chat(text, image=opened(data)), **parameters)
        written = told["generated_text"]
        expected.append(written if isinstance(written, str) else written[-1]["content"])
    expected.append(truth(text="none", **parameters)[0]["generated_text"])
    assert_rows(batch, [{"generated_text": one} for one in expected])


def test_all_pictures_may_share_one_text(models):
    batch = run(SEE, models[SEE], {"image": PICTURES}, {**GREEDY, "text": TEXTS[1]})
    truth = plain(SEE, models[SEE])
    chats = [chat(TEXTS[1], image=opened(data)) for data in PICTURES]
    expected = [truth(text=one, **GREEDY)[0]["generated_text"] for one in chats]
    assert_rows(batch, [{"generated_text": one} for one in expected])
    job = {"task": SEE, "model": models[SEE], "input": pa.table({"image": PICTURES})}
    given = {**GREEDY, "text": TEXTS[1]}
    assert pipemill.preview(**job, parameters=given).table["generated_text"].to_pylist() == expected
    with pytest.raises(pipemill.ConfigError, match=r"or set parameters\.text for all rows"):
        pipemill.preview(**job)


@pytest.mark.parametrize("greeting", ["the mill", None])
def test_a_chat_template_reads_variables_of_the_job(models, tmp_path, greeting):
    folder = Path(shutil.copytree(models[SEE], tmp_path / "model"))
    file = folder / "chat_template.jinja"
    file.write_text("{{ greeting or 'bread' }} " + file.read_text())
    truth = plain(SEE, str(folder))
    expected = [truth(text=chat(t), **GREEDY, greeting=greeting)[0] for t in TEXTS]
    assert expected[0] != truth(text=chat(TEXTS[0]), **GREEDY, greeting="Anna and Peter")[0]
    given = {**GREEDY, "chat_template_kwargs": {"greeting": greeting}}
    batch = run(SEE, folder, {"messages": [chat(t) for t in TEXTS]}, given)
    assert_rows(batch, [{"generated_text": one["generated_text"]} for one in expected])
    wrong = {**GREEDY, "chat_template_kwargs": {"greetings": "a"}}
    with pytest.raises(ValueError, match="its chat template know no 'greetings'"):
        run(SEE, folder, {"messages": [chat(TEXTS[0])]}, wrong)
    with pytest.raises(ValueError, match="chat_template_kwargs is for chats, and .* plain texts"):
        run(SEE, folder, {"text": TEXTS}, given)


def test_a_row_that_turns_out_otherwise_later_is_written_by_generate(models):
    """As one with padding, where the rows that were tried had none."""
    padding = {"processor_kwargs": {"padding": "max_length", "max_length": 40}}
    load = LoadTask(
        task=SEE, model=Model(path=models[SEE]), columns=(("image", "i"), ("text", "t")),
        parameters=json.dumps({**GREEDY, **padding}),
    )  # fmt: skip
    stages, truth = load(), plain(SEE, models[SEE])
    for words in (60, 3):
        texts = [f"<media> {tiny.sentence(words + row, row)}" for row in range(4)]
        batch = stages.process(Batch(pa.table({"i": PICTURES, "t": texts})))
        expected = [
            truth(images=opened(data), text=text, **GREEDY, **padding)[0]["generated_text"]
            for data, text in zip(PICTURES, texts, strict=True)
        ]
        assert_rows(batch, [{"generated_text": one} for one in expected])
        assert stages.task.schedules


def test_nothing_but_numbers_of_an_image_travels_with_its_chunks(models):
    load = LoadTask(
        task=SEE, model=Model(path=models[SEE]), columns=(("image", "i"), ("text", "t")),
        parameters=json.dumps(GREEDY),
    )  # fmt: skip
    batch = load().expand(Batch(pa.table({"i": PICTURES[:1], "t": TEXTS[:1]})))
    assert b"PIL" not in batch.rows["_pipemill_chunks"][0].as_py()[0]["inputs"]


def test_a_model_that_reads_no_chats_is_given_the_text_as_it_is(models, tmp_path):
    shutil.copytree(models[SEE], tmp_path / "base")
    for name in ("chat_template.jinja", "chat_template.json"):
        (tmp_path / "base" / name).unlink(missing_ok=True)
    base = str(tmp_path / "base")
    assert plain(SEE, base).processor.chat_template is None
    texts = ["<media> one", "no mark"]
    batch = run(SEE, base, {"image": PICTURES[:2], "text": texts}, GREEDY)
    (told,) = plain(SEE, base)(images=opened(PICTURES[0]), text=texts[0], **GREEDY)
    assert_rows(batch, [{"generated_text": told["generated_text"]}, "expand"], 2)


def test_sound_beside_a_text_is_a_message_too(models):
    parameters = {"max_new_tokens": 6, "return_full_text": False}
    batch = run(HEAR, models[HEAR], {"audio": SOUNDS, "text": TEXTS}, parameters)
    truth = plain(HEAR, models[HEAR])
    expected = [
        {"generated_text": truth(text=chat(t, audio=heard(s)), **parameters)[0]["generated_text"]}
        for t, s in zip(TEXTS, SOUNDS, strict=True)
    ]
    assert_rows(batch, expected)


def test_sound_alone_is_a_message_too(models):
    batch = run(HEAR, models[HEAR], {"audio": [*SOUNDS[:3], None]}, GREEDY)
    truth = plain(HEAR, models[HEAR])
    expected = []
    for sound in SOUNDS[:3]:
        said = [{"role": "user", "content": [{"type": "audio", "audio": heard(sound)}]}]
        expected.append({"generated_text": truth(text=said, **GREEDY)[0]["generated_text"]})
    assert_rows(batch, [*expected, "expand"])
    assert "the row has none of text, image, video, audio" in batch.failures[3].message


@pytest.mark.parametrize(
    "parameters",
    [
        GREEDY,
        {"generate_kwargs": {"max_new_tokens": 5, "num_beams": 2, "num_return_sequences": 2}},
        {"max_new_tokens": 9, "stop_sequence": "a"},
    ],
)
def test_chats_with_images_in_every_form(models, tmp_path, parameters):
    (tmp_path / "0.png").write_bytes(PICTURES[0])
    encoded = base64.b64encode(PICTURES[2]).decode()
    address = f"data:image/png;base64,{base64.b64encode(PICTURES[3]).decode()}"
    chats = [
        chat(TEXTS[0], image="0.png"),
        _said({"type": "image", "path": str(tmp_path / "0.png")}, 1),
        _said({"type": "image", "base64": encoded}, 2),
        _said({"type": "image_url", "image_url": {"url": address}}, 3),
        [{"role": "user", "content": _text(0)}],
    ]
    shown = [PICTURES[0], PICTURES[0], PICTURES[2], PICTURES[3]]
    truth = plain(SEE, models[SEE])
    expected = []
    for row in range(5):
        asked = chat(TEXTS[row], image=opened(shown[row])) if row < 4 else chats[4]
        told = truth(text=copy.deepcopy(asked), **copy.deepcopy(parameters))
        texts = [one["generated_text"] for one in told]
        texts = [t if isinstance(t, str) else t[-1]["content"] for t in texts]
        several = len(texts) > 1
        expected.append({"generated_texts": texts} if several else {"generated_text": texts[0]})
    messages = [json.dumps(one) for one in chats]
    batch = run(SEE, models[SEE], {"messages": messages}, parameters, roots=(str(tmp_path),))
    assert_rows(batch, expected)


def _text(number):
    return [{"type": "text", "text": TEXTS[number]}]


def _said(part, number):
    return [{"role": "user", "content": [part, *_text(number)]}]


def test_a_chat_as_structs_takes_the_image_beside_it(models):
    """As datasets of pictures and chats are: a place in the chat, and a column of images."""
    chats = [chat(text) for text in TEXTS]
    for one in chats:
        one[0]["content"].insert(0, {"type": "image"})
    chats.append(chat("no place"))
    batch = run(SEE, models[SEE], {"messages": chats, "image": [*PICTURES, PICTURES[0]]}, GREEDY)
    truth = plain(SEE, models[SEE])
    expected = [
        {"generated_text": truth(text=chat(t, image=opened(p)), **GREEDY)[0]["generated_text"]}
        for t, p in zip(TEXTS, PICTURES, strict=True)
    ]
    assert_rows(batch, [*expected, "expand"])
    assert "no message says where" in batch.failures[4].message


@pytest.mark.parametrize("key", ["image", "url", "path"])
def test_a_chat_reads_nothing_outside_the_roots(models, tmp_path, monkeypatch, key):
    import socket

    def fetched(*args, **kwargs):
        pytest.fail("something was fetched")

    monkeypatch.setattr(socket, "getaddrinfo", fetched)
    monkeypatch.setattr(socket.socket, "connect", fetched)
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURES[0])
    inside = tmp_path / "inside"
    inside.mkdir()
    named = [str(secret), "https://example.org/a.png", "../secret.png", f"file://{secret}"]
    chats = [_said({"type": "image", key: name}, 0) for name in named]
    as_openai = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/a.png"}}
    chats.append(_said(as_openai, 0))
    good = [{"role": "user", "content": _text(1)}]
    messages = [json.dumps(one) for one in [*chats, good]]
    batch = run(SEE, models[SEE], {"messages": messages}, GREEDY, roots=(str(inside),))
    assert {row: f.stage for row, f in batch.failures.items()} == dict.fromkeys(range(5), "expand")
    assert {f.error for f in batch.failures.values()} == {"PermissionError"}
    assert batch.results["generated_text"][5].as_py()


def heard(data):
    return decode_audio(data, tiny_audio.RATE)


def test_anything_with_sound(models):
    parameters = {"max_new_tokens": 6, "return_full_text": False}
    truth = plain(HEAR, models[HEAR])
    texts = [f"<media> {text}" for text in TEXTS]
    batch = run(HEAR, models[HEAR], {"audio": [*SOUNDS, None], "text": [*texts, "no"]}, parameters)
    expected = [
        truth({"text": t, "audio": heard(s)}, **parameters)[0]["generated_text"]
        for t, s in zip(texts, SOUNDS, strict=True)
    ]
    expected.append(truth(text="no", **parameters)[0]["generated_text"])
    assert_rows(batch, [{"generated_text": one} for one in expected], 5)


def test_chats_with_sound(models, tmp_path):
    parameters = {"max_new_tokens": 6, "return_full_text": False}
    for number, sound in enumerate(SOUNDS):
        (tmp_path / f"{number}.wav").write_bytes(sound)
    chats = [json.dumps(chat(text, audio=f"{row}.wav")) for row, text in enumerate(TEXTS)]
    chats.append(json.dumps(chat(TEXTS[0], audio="/etc/hostname")))
    batch = run(HEAR, models[HEAR], {"messages": chats}, parameters, roots=(str(tmp_path),))
    truth = plain(HEAR, models[HEAR])
    expected = [
        {"generated_text": truth(text=chat(t, audio=heard(s)), **parameters)[0]["generated_text"]}
        for t, s in zip(TEXTS, SOUNDS, strict=True)
    ]
    assert_rows(batch, [*expected, "expand"])


QUESTIONS = {
    "sad": {"type": "noul", "instructions": "Is it sad?"},
    "what": {"type": "choice", "criteria": {"mill": "a mill by the river", "horse": None}},
    "much": {"type": "score", "criteria": ["cold", "warm", "bad"]},
}


def test_decisions_have_the_columns_that_a_sample_shows(models, tmp_path):
    import pyarrow.parquet as pq

    states = [*TEXTS[:3], None, tiny.sentence(30, 7)]
    pq.write_table(pa.table({"state": states}), tmp_path / "in.parquet")
    job = {
        "task": "decision",
        "model": models["decision"],
        "input": str(tmp_path / "in.parquet"),
        "output": {"path": str(tmp_path / "out"), "max_errors": None},
        "parameters": {"questions": QUESTIONS},
        "actors": {"placement": "local"},
    }
    report = pipemill.run(job)
    truth = plain("decision", models["decision"])
    got = pq.read_table(tmp_path / "out")["result"].to_pylist()
    expected = [truth({"state": s, "questions": QUESTIONS}) for s in states if s is not None]
    assert (report.rows, report.done, report.dead) == (5, 4, 1)
    for one, told in zip(got, expected, strict=True):
        for part in ("probabilities", "confidence"):
            assert one["what"][part] == pytest.approx(told["what"][part], abs=1e-4)
        assert one["sad"]["noul"] == pytest.approx(told["sad"]["noul"], abs=1e-4)
        assert one["much"]["score"] == pytest.approx(told["much"]["score"], abs=1e-4)
        assert one["what"]["choice"] == told["what"]["choice"]
    assert len({one["sad"]["noul"] for one in expected}) == 4
    again = pipemill.verify(str(tmp_path / "out"), sample=4)  # options in their order
    assert again.findings == []
    swapped = {name: QUESTIONS[name] for name in reversed(QUESTIONS)}
    with pytest.raises(pipemill.ConfigError, match="another job: parameters"):
        pipemill.run({**job, "parameters": {"questions": swapped}})


def test_a_request_names_no_files(models):
    from pipemill.pipelines.tasks.decision import DECISION

    for asset in ("/etc/passwd", "http://a/b.png", {"path": "/a"}, {"data_base64": "/etc/passwd"}):
        request = json.dumps({"state": "i", "questions": QUESTIONS, "assets": {"i": asset}})
        with pytest.raises(ValueError):
            DECISION.prepare({"request": request}, None)
    held = {"data_base64": base64.b64encode(PICTURES[1]).decode()}
    request = {"state": "i", "questions": QUESTIONS, "assets": {"i": held}}
    assert DECISION.prepare({"request": request}, None)["assets"]["i"].size == (40, 27)


@pytest.mark.parametrize("goes_on", [None, True, False])
def test_a_reply_alone_ends_the_chat_as_the_whole_one_does(models, goes_on):
    from pipemill.pipelines.adapter.chat_text import append_reply

    for last in ("user", "assistant"):
        chat = [{"role": "user", "content": "a"}, {"role": last, "content": "b"}]
        joined = goes_on is True or (goes_on is None and last == "assistant")
        expected = [{"role": last, "content": "b c"}] if joined else [
            {"role": last, "content": "b"}, {"role": "assistant", "content": " c"}
        ]  # fmt: skip
        assert append_reply(chat, " c", goes_on) == chat[:1] + expected
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
    assert append_reply(parts, " c", None) == [{"role": "assistant", "content": "b c"}]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "the model has no chat template: it can't read messages"),
        ([{"name": "rag", "template": "a"}], r"several chat templates \(rag\), and none is called"),
        ("{% for m in messages %}", "the model's chat template is damaged: Unexpected end"),
        ("{{ '{:>999999999}'.format(messages[0]['content']) }}", "makes texts of gigabytes"),
        ("{{ '%-999999999s' % messages[0]['content'] }}", "makes texts of gigabytes"),
        ("{{ messages[0]['content'].center(2000000000) }}", "makes texts of gigabytes"),
        ("{{ messages[0]['content'] * 9999999 }}", "makes 9,999,999 characters of a message"),
    ],
)
@pytest.mark.parametrize("task", ["text-generation", "conversational"])
def test_a_model_that_reads_no_chats_is_refused(models, tmp_path, task, template, said):
    """Each row would be a dead letter."""
    folder = Path(shutil.copytree(models["text-generation"], tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    load = LoadTask(task=task, model=Model(path=str(folder)), columns=(("messages", "chat"),))
    with pytest.raises(ValueError, match=said):
        load()
    no_widths = """{% set n = namespace(least=999999999) %}{{ '{"id": 123456789}' }}"""
    example = no_widths + "{{ messages[0]['content'] }}"
    own = {"tokenizer_encode_kwargs": {"chat_template": example}}
    replace(load, parameters=json.dumps(own))()
    wide = {"tokenizer_encode_kwargs": {"chat_template": "{{ '{:>999999999}'.format('a') }}"}}
    with pytest.raises(ValueError, match="the parameter chat_template holds .* of gigabytes"):
        replace(load, parameters=json.dumps(wide))()
    if task == "text-generation":
        replace(load, columns=(("text", "text"),))()
