"""LLaVA-1.5 in the layout of its original code (`LlavaLlamaForCausalLM`), as the model that transformers knows.

A checkpoint in this layout has up to four parts: the weights of the language model, the projector (among these weights
or in `mm_projector.bin`), the CLIP tower that config.json names, and a LoRA adapter with the other trained weights in
`non_lora_trainables.bin`. The weights are read part by part into the model of transformers, under its names.
"""
