"""Tiny random models that hear or speak, and sounds of many lengths and rates."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support import tiny, tiny_generators

RATE = 16_000
MELS = 8  # of `fastspeech2`


def wav(seconds: float, seed: int, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of gliding tones and noise, different for each seed."""
    import soundfile

    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    low, high = rng.uniform(80, 600), rng.uniform(600, 3000)
    tones = np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time * (1 + time / 9))
    sound = 0.2 * tones * np.sin(2 * np.pi * rng.uniform(1, 4) * time) ** 2
    sound = sound + 0.02 * rng.standard_normal(len(time))
    sides = np.stack([sound * (1 - 0.3 * side) for side in range(channels)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, sides.astype(np.float32), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def sounds(longest_s: float = 2.0) -> list[bytes]:
    """Eight files from 0.1 seconds on; three of other rates, two of them stereo."""
    lengths = [0.1, 0.3, 1.0, 0.15, 0.7, 0.3, 0.5, 1.0]
    shapes = {1: (8000, 1), 3: (RATE, 2), 5: (44_100, 2)}
    return [
        wav(max(length * longest_s, 0.1), seed, *shapes.get(seed, (RATE, 1)))
        for seed, length in enumerate(lengths)
    ]


def _wav2vec2(**more: object):
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 8),
        conv_stride=(8, 8, 5),  # 50 frames a second
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        initializer_range=0.6,
        **more,
    )


def classifier(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    torch.manual_seed(1)
    names = ["bird", "rain", "mill", "horse", "wind", "bell", "steps"]
    config = _wav2vec2(id2label=dict(enumerate(names)), classifier_proj_size=16)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def ctc(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(2)
    folder.mkdir(parents=True)
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijkl"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    words = Wav2Vec2CTCTokenizer(str(vocabulary))
    words.save_pretrained(folder)
    model = Wav2Vec2ForCTC(_wav2vec2(vocab_size=len(pieces), pad_token_id=0))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def whisper(folder: Path) -> None:
    """Hears two seconds at a time; writes letters, and timestamps of 0.04 seconds."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(5)
    letters = {c: i for i, c in enumerate(bytes_to_unicode().values())}
    words = WhisperTokenizer(vocab={**letters, "<|endoftext|>": 256}, merges=[])
    names = "startoftranscript en de translate transcribe startoflm startofprev nospeech".split()
    names += ["notimestamps", *(f"{i * 0.02:.2f}" for i in range(1501))]
    words.add_tokens([f"<|{name}|>" for name in names], special_tokens=True)
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    config = WhisperConfig(
        vocab_size=len(words),
        num_mel_bins=16,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=100,
        max_target_positions=64,
        init_std=0.8,
        bos_token_id=256,
        eos_token_id=256,
        pad_token_id=256,
        decoder_start_token_id=ids["startoftranscript"],
    )
    model = WhisperForConditionalGeneration(config).eval()
    told = {
        "bos_token_id": 256,
        "eos_token_id": 256,
        "pad_token_id": 256,
        "decoder_start_token_id": ids["startoftranscript"],
        "max_new_tokens": 16,
        "num_beams": 1,
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": ids["en"], "<|de|>": ids["de"]},
        "task_to_id": {"translate": ids["translate"], "transcribe": ids["transcribe"]},
        "no_timestamps_token_id": ids["notimestamps"],
        "prev_sot_token_id": ids["startofprev"],
        "max_initial_timestamp_index": 50,
        "alignment_heads": [[0, 0], [0, 1]],
        "language": "<|en|>",
        "task": "transcribe",
    }
    model.generation_config = GenerationConfig(**told)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)


def clap(folder: Path) -> None:
    import torch
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
    )

    torch.manual_seed(3)
    words = tiny.tokenizer(64)
    words.model_input_names = ["input_ids", "attention_mask"]
    text = ClapTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=66,
        pad_token_id=0,
        projection_dim=32,
        initializer_range=0.7,
    )
    audio = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=16,
        window_size=4,
        patch_size=2,
        patch_stride=[2, 2],
        patch_embeds_hidden_size=16,
        hidden_size=32,
        projection_dim=32,
        depths=[2, 2],
        num_hidden_layers=2,
        num_attention_heads=[2, 2],
        freq_ratio=2,
        enable_fusion=False,
        initializer_range=0.7,
    )
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=32)
    config.logit_scale_init_value = 300.0  # the scores differ more
    model = ClapModel(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        hop_length=320,
        max_length_s=2,
        fft_window_size=512,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)


def vits(folder: Path) -> None:
    import torch
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    torch.manual_seed(4)
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.json"
    pieces = ["<pad>", *" abcdefghijklmnopqrstuvwxyz", "<unk>"]
    vocabulary.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    VitsTokenizer(
        str(vocabulary), pad_token="<pad>", unk_token="<unk>", phonemize=False
    ).save_pretrained(folder)
    config = VitsConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=8,
        duration_predictor_num_flows=2,
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=2,
        upsample_initial_channel=16,
        upsample_rates=[8, 2],
        upsample_kernel_sizes=[16, 4],
        resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        initializer_range=0.5,
        noise_scale=0.0,  # the same answer each time
        noise_scale_duration=0.0,
    )
    VitsModel(config).eval().save_pretrained(folder)


def speecht5(folder: Path) -> None:
    """Speaks in the voice of eight numbers. Its vocoder is in the folder `vocoder` beside it."""
    import torch
    from transformers import (
        SpeechT5Config,
        SpeechT5ForTextToSpeech,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )

    torch.manual_seed(6)
    config = SpeechT5Config(
        vocab_size=360,
        hidden_size=24,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        speech_decoder_prenet_units=8,
        speech_decoder_postnet_units=8,
        num_mel_bins=20,
        speaker_embedding_dim=8,
        initializer_range=0.4,
    )
    SpeechT5ForTextToSpeech(config).eval().save_pretrained(folder)
    tiny_generators.words(64).save_pretrained(folder)
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=20,
        upsample_initial_channel=8,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
    )
    SpeechT5HifiGan(vocoder).save_pretrained(folder / "vocoder")


def fastspeech2(folder: Path) -> None:
    """Speaks by a vocoder inside the model."""
    from transformers import FastSpeech2ConformerWithHifiGan, FastSpeech2ConformerWithHifiGanConfig

    layers = {
        f"{part}_{name}": number
        for part in ("encoder", "decoder")
        for name, number in {"layers": 1, "num_attention_heads": 2, "linear_units": 16}.items()
    }
    predictors = {f"{name}_predictor_channels": 8 for name in ("duration", "energy", "pitch")}
    words = tiny_generators.words(64)
    config = FastSpeech2ConformerWithHifiGanConfig(
        model_config={
            **layers,
            **predictors,
            "vocab_size": len(words),
            "hidden_size": 16,
            "num_mel_bins": MELS,
            "speech_decoder_postnet_units": 8,
            "speech_decoder_postnet_layers": 2,
        },
        vocoder_config={
            "model_in_dim": MELS,
            "upsample_initial_channel": 8,
            "upsample_rates": [4, 4],
            "upsample_kernel_sizes": [8, 8],
        },
    )
    model = FastSpeech2ConformerWithHifiGan(config).eval()
    model.model.duration_predictor.linear.bias.data.fill_(1)  # some frames for each token
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def moonshine(folder: Path) -> None:
    """Writes what it hears, without windows: recordings have their own lengths."""
    import torch
    from transformers import (
        MoonshineConfig,
        MoonshineForConditionalGeneration,
        Wav2Vec2FeatureExtractor,
    )

    torch.manual_seed(4)
    words = tiny_generators.words(64)
    config = MoonshineConfig(
        vocab_size=len(words),
        hidden_size=24,
        intermediate_size=32,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        max_position_embeddings=64,
        decoder_start_token_id=0,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
    )
    MoonshineForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "audio-classification": classifier,
    "automatic-speech-recognition": ctc,
    "moonshine": moonshine,
    "whisper": whisper,
    "zero-shot-audio-classification": clap,
    "text-to-audio": vits,
}


def csm(folder: Path) -> None:
    """Speaks the last message of a chat, in the voices of the recordings in those before."""
    import torch
    from transformers import (
        CsmConfig,
        CsmForConditionalGeneration,
        CsmProcessor,
        EncodecFeatureExtractor,
    )

    tokenizer = tiny_generators.words(special=("<|AUDIO|>", "<|audio_eos|>"))
    sound, end = tokenizer.convert_tokens_to_ids(["<|AUDIO|>", "<|audio_eos|>"])
    layer = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    small = {**layer, "hidden_size": 16, "intermediate_size": 20, "head_dim": 8}
    codes = {"num_codebooks": 4, "vocab_size": 32}
    codec = {
        **small,
        "model_type": "mimi",
        "num_filters": 4,
        "codebook_size": 32,
        "codebook_dim": 8,
        "num_quantizers": 4,
        "vector_quantization_hidden_dimension": 8,
        "upsample_groups": 16,
    }
    config = CsmConfig(
        **small,
        **codes,
        text_vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        codebook_pad_token_id=31,
        audio_token_id=sound,
        audio_eos_token_id=end,
        depth_decoder_config={
            **small, **codes, "backbone_hidden_size": 16, "max_position_embeddings": 5
        },
        codec_config=codec,
    )  # fmt: skip
    torch.manual_seed(1)
    model = CsmForConditionalGeneration(config)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and not name.startswith("codec_model"):
            torch.nn.init.normal_(weight, std=0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            torch.nn.init.normal_(buffer)
    model.generation_config.update(max_new_tokens=6, do_sample=False)
    model.depth_decoder.generation_config.update(
        min_new_tokens=3, max_new_tokens=3, do_sample=False
    )
    model.save_pretrained(folder)
    template = (
        "{% for m in messages %}[{{ m['role'] }}]{% for part in m['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% else %}<|AUDIO|><|audio_eos|>{% endif %}{% endfor %}{% endfor %}"
    )
    hears = EncodecFeatureExtractor(sampling_rate=24_000, feature_size=1)
    CsmProcessor(hears, tokenizer, chat_template=template).save_pretrained(folder)
