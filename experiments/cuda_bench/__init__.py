"""The CUDA machine on a card: checked against the CPU machine bit for bit, then timed; ``__main__`` says how.

It needs numpy, numba, torch (which brings mpmath) and triton, and imports nothing else that is not in this checkout.
Work is a list of parts, each a list of jobs, each of which gives one row of the record (see ``parts``).
"""
