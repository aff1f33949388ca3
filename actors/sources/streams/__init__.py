"""Read streams of bytes: lines, encodings, compression."""
