"""The CPU machine: programs as arrays of op codes, run by a few kernels over strips that stay in cache."""
