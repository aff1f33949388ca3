"""The functions that Ray calls: splits in, a result about each out."""
