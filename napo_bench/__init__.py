"""Measure and train away modality bias in multimodal LLMs."""

__version__ = "0.1.0"
