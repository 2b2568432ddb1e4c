"""Decoding with a local model: prompts share what they begin with, and finished answers leave the batch."""
