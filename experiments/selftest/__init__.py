"""Whether the bits are right on this machine: the fast kernels against the specification, in seeded batches."""
