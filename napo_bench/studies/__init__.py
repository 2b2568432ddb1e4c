"""Whole experiments: train-then-eval, and the paper's claims in the micro world."""
