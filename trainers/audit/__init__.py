"""Audits preference rows before they are trained on."""
