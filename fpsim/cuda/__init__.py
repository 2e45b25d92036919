"""The CUDA machine. Its files import torch and are themselves imported on first use.

``dispatch`` chooses: Triton's kernels (``triton_*``), or the twin (``twin_*``), which computes with plain torch
operations on tensors of any device. Both have the bits of the CPU machine.
"""
