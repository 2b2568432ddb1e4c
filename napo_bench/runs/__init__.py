"""Runs: evaluating and scoring, their results, comparing and gating them."""
