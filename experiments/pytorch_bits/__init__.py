"""Does fpsim compute the bits that torch.optim computes? ``python -m experiments.pytorch_bits`` asks and records."""
