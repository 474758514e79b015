"""Prompts of frozen transformers and of chat services as meta-parameters."""
