"""Names that a user gives, and several rooms know."""

MICRO = "micro"
"""The micro world: as a base checkpoint, as a suite, and as preference rows."""
