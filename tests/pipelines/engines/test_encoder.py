"""Packed or padded: the answers are those of each sequence alone, whatever shares its pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipemill.pipelines.engines import packed_attention
from pipemill.pipelines.engines.onednn import linears as onednn_linears
from pipemill.pipelines.engines.padded import PaddedEngine
from pipemill.pipelines.text import model_limits

from tests.support import encoders
from tests.support.encoders import LIMIT

TOKENS = ("Model", "ForTokenClassification", "ForMaskedLM")
HEADS = (*TOKENS, "ForSequenceClassification")
PACKED = [
    (kind, head)
    for kind in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "DistilBert")
    for head in HEADS
]
PACKED += [(kind, head) for kind in ("ModernBert", "Albert") for head in HEADS]
PACKED += [("Qwen2", "Model"), ("Qwen2", "ForTokenClassification")]
PADDED = [
    ("MPNet", "Model", {}),
    ("MPNet", "ForSequenceClassification", {}),
    ("DebertaV2", "Model", {}),
    ("DebertaV2", "ForSequenceClassification", {}),
    ("T5", "ForSequenceClassification", {}),
    ("Bart", "ForSequenceClassification", {}),
    ("NomicBert", "ForSequenceClassification", {}),  # packed, it has fewer answers than chunks
]
MIXES = (
    st.lists(st.integers(1, LIMIT), min_size=1, max_size=8)
    | st.lists(st.sampled_from([1, 5, 17]), min_size=5, max_size=12)
    | st.lists(st.integers(1, 6), max_size=8).map(lambda short: [LIMIT, *short, 1])
)
few = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def farthest(got, expected) -> float:
    """The largest difference, as a share of the largest answer."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def check(encoder, model, lengths, close=3e-5):
    made = encoders.sequences(encoder.pipeline, lengths)
    got, sizes = encoder(encoders.chunks(made))
    expected = encoders.one_by_one(model, made, encoder.outputs.reads == "first")
    assert sizes.tolist() == lengths
    assert farthest(got.float().numpy(), expected) < close
    if encoder.outputs.reads == "first" and len(lengths) > 1:
        assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max(), "rows differ"


@pytest.mark.parametrize(("kind", "head"), PACKED)
def test_packed_answers_are_those_of_each_sequence_alone(kind, head):
    encoder = encoders.encoder(encoders.loaded(kind, head))
    usual = encoders.loaded(kind, head).model
    assert encoder.is_packed

    @few
    @given(MIXES)
    def holds(lengths):
        check(encoder, usual, lengths)

    holds()


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification", "ForMaskedLM"])
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "Electra", "DistilBert", "Albert"])
def test_the_last_layer_works_for_the_tokens_that_are_read(kind, head):
    """Albert's is the same module as its first, which needs all tokens."""
    pipeline, usual = encoders.loaded(kind, head), encoders.loaded(kind, head).model
    masks = head == "ForMaskedLM"
    encoder = encoders.encoder(pipeline, reads="masks" if masks else "first")
    seen, tokenizer = [], pipeline.tokenizer
    assert encoder.is_packed
    for module in pipeline.model.modules():
        if type(module).__name__.endswith(("Layer", "TransformerBlock")):
            module.register_forward_hook(lambda m, args, out: seen.append(out))
    for lengths in ([40, 17, 17, 5, 1], [LIMIT] * 2, [1], [2] * 40):
        made = encoders.sequences(pipeline, lengths)
        for one in made:
            one["input_ids"][one["input_ids"] == tokenizer.mask_token_id] = 5
            one["input_ids"][1::2] = tokenizer.mask_token_id if masks else 6
        got, _ = encoder(encoders.chunks(made))
        expected = encoders.one_by_one(usual, made, whole=head == "ForSequenceClassification")
        ids = np.concatenate([one["input_ids"] for one in made])
        read = ids == tokenizer.mask_token_id
        if not masks:
            read[:] = False
            read[np.cumsum(lengths) - lengths] = True
        if len(expected) == len(ids):
            expected = expected[read]
        if len(expected):
            assert farthest(got.numpy(), expected) < 3e-5
        rows = [(out if hasattr(out, "shape") else out[0]).shape[1] for out in seen]
        assert rows[0] == len(ids)
        few = read.sum() + -read.sum() % 16 if read.any() else len(ids)
        assert rows[-1] == (len(ids) if kind == "Albert" else few)
        seen.clear()
    assert not any(m._forward_pre_hooks for m in pipeline.model.modules())


def test_no_keys_are_copied_for_tokens_that_the_last_layer_repeats(monkeypatch):
    import torch

    pipeline = encoders.loaded("Bert", "ForSequenceClassification")
    encoder, usual = encoders.encoder(pipeline), torch.nn.functional.scaled_dot_product_attention
    rows = []

    def noted(query, key, *given, **named):
        rows.append(len(key))
        return usual(query, key, *given, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    encoder(encoders.chunks(encoders.sequences(pipeline, [LIMIT])))
    assert rows == [1, 1]


@pytest.mark.parametrize(
    ("kind", "head", "more"),
    [
        ("ModernBert", "ForSequenceClassification", {"classifier_pooling": "mean"}),
        ("EuroBert", "ForSequenceClassification", {"classifier_pooling": "late"}),
        ("EuroBert", "ForSequenceClassification", {"classifier_pooling": "mean"}),
        ("DPR", "QuestionEncoder", {"projection_dim": 0}),
        ("Qwen2", "ForSequenceClassification", {}),
    ],
)
def test_a_head_that_looks_at_all_tokens_gets_them_chunk_by_chunk(kind, head, more):
    pipeline, usual = (encoders.loaded(kind, head, **more) for _ in range(2))
    encoder = encoders.encoder(pipeline, reads="first")
    assert encoder.is_packed
    seen = []
    words = pipeline.model.get_input_embeddings()
    words.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    for lengths in ([40, 17, 17, 5, 1], [LIMIT] * 2, [1], [2] * 40):
        check(encoder, usual.model, lengths)
    assert seen == [(1, 80), (1, 2 * LIMIT), (1, 1), (1, 80)]
    places = []
    pipeline.model.register_forward_pre_hook(
        lambda module, args, given: places.append(given["input_ids"].numel()), with_kwargs=True
    )
    check(encoder, usual.model, [LIMIT, *[1] * 200])
    assert max(places) <= 4 * (LIMIT + 200)
    assert len(places) < 10
    pipeline.model._forward_pre_hooks.clear()
    hooks = [(m._forward_pre_hooks, m._forward_hooks) for m in pipeline.model.modules()]
    assert not any(
        before or after for (before, after) in hooks if before is not words._forward_pre_hooks
    )


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification"])
def test_a_model_that_answers_otherwise_with_padding_gets_none(head):
    """MobileBERT sees each token's neighbours, and behind a text's end what stands for padding."""
    pipeline = encoders.loaded("MobileBert", head)
    words = pipeline.model.get_input_embeddings().weight.data
    words[0] = words[9]
    usual, encoder = copy.deepcopy(pipeline.model), encoders.encoder(pipeline)
    lengths = [40, 17, 17, 5, 1]
    check(encoder, usual, lengths)
    assert not encoder.is_packed
    made = encoders.chunks(encoders.sequences(pipeline, lengths))
    encoder.engine = PaddedEngine(pipeline, encoder.outputs)
    padded, _ = encoder(made)
    expected = encoders.one_by_one(usual, encoders.sequences(pipeline, lengths), head != "Model")
    assert farthest(padded.numpy(), expected) > 1e-3, "it does not show here"


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "ModernBert"])
@pytest.mark.parametrize("head", HEADS)
def test_with_prepacked_linears_streams_have_few_lengths_and_the_same_answers(
    monkeypatch, kind, head
):
    monkeypatch.setattr(onednn_linears, "_FEWEST_WEIGHTS", 1)
    monkeypatch.setattr(onednn_linears, "_pays", lambda layer: True)
    pipeline = encoders.loaded(kind, head)
    encoder = encoders.encoder(pipeline)
    assert encoder.is_packed
    linears = [m for m in pipeline.model.modules() if "forward" in vars(m)]
    assert linears
    seen = set()
    words = pipeline.model.get_input_embeddings()
    words.register_forward_pre_hook(lambda module, given: seen.add(given[0].shape[1]))
    usual = encoders.loaded(kind, head).model
    for lengths in ([5, 5, 1, 40], [LIMIT, 3], [2], [1, 1, 2], [16], [3] * 11):
        check(encoder, usual, lengths)
    assert seen == {16, 48, 64, 112}
    with encoder.as_loaded():
        assert not any("forward" in vars(layer) for layer in linears)
    encoder.unpack()
    assert not any("forward" in vars(layer) for layer in linears)


@pytest.mark.parametrize(("kind", "head", "other"), PADDED)
def test_what_does_not_pack_is_padded_with_its_usual_attention(kind, head, other, caplog):
    import transformers

    pipeline = encoders.loaded(kind, head, **other)
    before = pipeline.model.config._attn_implementation
    encoder = encoders.encoder(pipeline)
    assert not encoder.is_packed
    configs = [m.config for m in pipeline.model.modules() if hasattr(m, "config")]
    assert {config._attn_implementation for config in configs} == {before}
    usual = encoders.loaded(kind, head, **other).model
    transformers.utils.logging.enable_propagation()
    caplog.clear()
    for lengths in ([5, 5, 1, 40], [LIMIT, 3], [2], [1, 1, 2]):
        check(encoder, usual, lengths)
    assert not caplog.records, "nothing is said of every micro-batch"
    transformers.utils.logging.disable_propagation()


@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "Qwen2"])
def test_half_precision_packs_and_is_as_close_as_it_can_be(kind):
    encoder = encoders.encoder(encoders.loaded(kind, dtype="bfloat16"))
    assert encoder.is_packed
    made = encoders.sequences(encoder.pipeline, [LIMIT, 17, 17, 4, 1])
    expected = encoders.one_by_one(
        encoders.loaded(kind).model, made, encoder.outputs.reads == "first"
    )
    got = encoder(encoders.chunks(made))[0].float().numpy()
    plain = encoders.loaded(kind, dtype="bfloat16").model
    usual = encoders.one_by_one(plain, made, encoder.outputs.reads == "first")
    assert np.linalg.norm(got - expected) < 1.2 * np.linalg.norm(usual - expected)


def without(fields):
    """Breaks the packed attention: these arguments are lost on the way."""

    def broken(module, query, key, value, attention_mask, **others):
        return usual(module, query, key, value, None, **{**others, **fields})

    usual = packed_attention._compute_attention
    return broken


def whole_stream(*args, **others):
    lengths = packed_attention._stream.lengths
    with packed_attention.packed_lengths(np.array([lengths.sum()])):
        answer = attention(*args, **others)
    packed_attention._stream.lengths = lengths  # packed_lengths has removed it
    return answer


attention = packed_attention._compute_attention


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("Bert", whole_stream),
        ("Bert", without({"scaling": 0.3})),
        ("ModernBert", without({"sliding_window": None})),
        ("ModernBert", without({"sliding_window": encoders.WINDOW // 2})),
        ("Qwen2", without({"is_causal": False})),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_that_are_a_little_wrong_are_refused(kind, broken, dtype, monkeypatch):
    monkeypatch.setattr(packed_attention, "_compute_attention", broken)
    encoder = encoders.encoder(encoders.loaded(kind, dtype=dtype))
    assert not encoder.is_packed
    if dtype == "float32":
        check(encoder, encoders.loaded(kind).model, [5, 9, LIMIT])


def test_a_model_that_looks_beyond_the_sequence_for_one_kind_of_token_is_refused():
    """ESM scales the embeddings of a text by its share of masks."""
    import transformers

    config = dict(encoders._SHAPE, vocab_size=20_000, pad_token_id=0, mask_token_id=4)
    config |= {"initializer_range": 0.5, "position_embedding_type": "rotary"}
    for dropout in (True, False):
        pipeline = encoders.loaded("Bert")
        pipeline.tokenizer.add_tokens([f"word{i}" for i in range(9_000)])
        esm = transformers.EsmConfig(**config, token_dropout=dropout)
        pipeline.model = transformers.EsmModel(esm).eval()
        assert encoders.encoder(pipeline, reads="all").is_packed is not dropout


def test_a_window_wider_than_the_usual_probe_is_tried(monkeypatch):
    settings = {"local_attention": 400, "max_position_embeddings": 4096}
    assert encoders.encoder(encoders.loaded("ModernBert", **settings)).is_packed
    monkeypatch.setattr(packed_attention, "_compute_attention", without({"sliding_window": None}))
    assert not encoders.encoder(encoders.loaded("ModernBert", **settings)).is_packed
    settings["local_attention"] = 5000
    assert not encoders.encoder(encoders.loaded("ModernBert", **settings)).is_packed


def test_attention_within_pieces_of_the_text_is_not_packed():
    """Llama 4's pieces are wider than the usual probe, and its attention is not told of them."""
    import transformers

    words = dict(encoders._SHAPE, vocab_size=200, max_position_embeddings=4096, num_local_experts=2)
    words |= {"initializer_range": 0.5, "intermediate_size_mlp": 37, "num_key_value_heads": 2}
    for pieces in (200, 5000):
        pipeline = encoders.loaded("Bert")
        config = transformers.Llama4TextConfig(**words, head_dim=8, attention_chunk_size=pieces)
        pipeline.model = transformers.Llama4TextModel(config).eval()
        encoder = encoders.encoder(pipeline, reads="all")
        assert not encoder.is_packed
    check(encoder, pipeline.model, [300, 230, 5])


def test_positions_that_depend_on_the_longest_text_are_not_packed():
    rope = (("rope_type", "dynamic"), ("rope_theta", 1e4), ("factor", 2.0))
    settings = {"rope_parameters": rope, "max_position_embeddings": 300}
    encoder = encoders.encoder(encoders.loaded("Qwen2", **settings))
    assert not encoder.is_packed


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_tokens_and_positions_that_the_model_lacks_are_not_tried(kind):
    # As after adding tokens to a tokenizer alone; and with fewer positions than the probe's.
    positions = 12 + (kind == "Roberta")
    pipeline = encoders.loaded(kind, vocab_size=50, max_position_embeddings=positions)
    encoder = encoders.encoder(pipeline)
    assert encoder.is_packed
    usual = encoders.loaded(kind, vocab_size=50, max_position_embeddings=positions).model
    check(encoder, usual, [12, 12, 3, 1])


def test_a_chunk_without_tokens_is_an_error_not_its_neighbours_answer():
    encoder = encoders.encoder(encoders.loaded("Bert", "ForSequenceClassification"))
    made = encoders.sequences(encoder.pipeline, [3, 5])
    made.insert(1, {name: values[:0] for name, values in made[0].items()})
    with pytest.raises(ValueError, match="no tokens"):
        encoder(encoders.chunks(made))


def _fsmt():
    return transformers.FSMTConfig(
        langs=["en", "de"], src_vocab_size=40, tgt_vocab_size=40, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=12,
    )  # fmt: skip


def _prophetnet():
    return transformers.ProphetNetConfig(
        vocab_size=40, hidden_size=16, encoder_ffn_dim=16, decoder_ffn_dim=16,
        num_encoder_layers=1, num_decoder_layers=1, num_encoder_attention_heads=2,
        num_decoder_attention_heads=2, max_position_embeddings=12,
    )  # fmt: skip


@pytest.mark.parametrize("config", [_fsmt, _prophetnet])
def test_tables_of_positions_that_do_not_end_are_no_limit(config):
    import torch

    model = transformers.AutoModel.from_config(config()).eval()
    assert model_limits.find_position_table(model).num_embeddings < 30
    with torch.inference_mode():  # longer than the table, and no error
        model(input_ids=torch.full((1, 30), 5), decoder_input_ids=torch.full((1, 3), 5))
    assert model_limits.count_positions(model) is None
    assert model_limits.count_positions(model.get_decoder()) is None
