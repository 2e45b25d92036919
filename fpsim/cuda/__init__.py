"""The CUDA machine: torch tensors. Imported on first use, as it imports torch."""
