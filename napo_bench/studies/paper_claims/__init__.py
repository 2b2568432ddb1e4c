"""The laboratory: the paper's variants, figures and claims, over several seeds, in a world whose truth is known."""
