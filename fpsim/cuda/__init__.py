"""The CUDA machine. Its files import torch and are themselves imported on first use.

The twin (``twin_*``) computes with plain torch operations, on tensors of any device, with the bits of the CPU machine.
"""
