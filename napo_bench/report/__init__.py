"""Runs -> the paper's tables, figures, and the HTML explorer."""
