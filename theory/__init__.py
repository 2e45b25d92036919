"""The bounds: what can be proven of the machine that ``fpsim`` emulates.

``rounding_model`` says what one rounding can do, ``composition`` carries that through a program (rules: ``walk``,
``function_rules``, ``reductions``), ``tensor_model`` makes the literature's constants of it, ``derivation`` holds
proofs as data and checks every step (``decision`` decides, ``mutation`` doubts), ``enclosure`` turns formulas into
numbers that cannot lie, ``window`` is the record of a run that hypotheses read, ``theorem`` says what a theorem is,
``theorems`` has one file for each, ``verdict`` holds a bound against a measurement, ``explain`` holds the log of
``fpsim.audit`` against all of them.
"""

from theory.explain import explain  # the function stands in front of the module of the same name

__all__ = ["explain"]
