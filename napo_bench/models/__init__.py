"""A checkpoint: its files, the checks of its parts, and the form of its prompts."""
