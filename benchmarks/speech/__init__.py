"""Speech through pipemill and transformers' pipeline: `python -m benchmarks.speech`."""
