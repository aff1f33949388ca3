"""Images through pipemill and transformers' pipeline: `python -m benchmarks.images`."""
