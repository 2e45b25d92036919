"""The model of ``fpsim.tensor_core`` beside a card's matrix instructions: ``python -m experiments.tensor_core``."""
