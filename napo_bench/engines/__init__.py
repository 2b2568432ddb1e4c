"""What answers: a checkpoint through transformers, or an endpoint; and the judge."""

BATCH_SIZE = 16
"""Prompts in one forward, or requests in flight, unless the user says otherwise."""
