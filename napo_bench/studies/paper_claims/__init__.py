"""The laboratory: the paper's variants, its figures and its claims, over several seeds, in a world of known truth."""
