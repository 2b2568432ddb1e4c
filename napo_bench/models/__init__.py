"""A checkpoint and how it is asked: its files, its conversation."""
