"""Put any transformers.Pipeline behind preprocess, forward and postprocess."""
