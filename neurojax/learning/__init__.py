"""Whole learning systems, one module each."""
