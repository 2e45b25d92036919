"""Theorems held against the results of a study, every one on every cell, and a certificate that others can check."""
