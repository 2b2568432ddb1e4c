"""The LLM judge that rates MMHal-Bench's answers and lists the objects of Object HalBench's."""
