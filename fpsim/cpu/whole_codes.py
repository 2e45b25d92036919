"""Kinds of lines and columns of the tables that ``whole`` reads, beside those of ``codes``."""

from __future__ import annotations

from fpsim.cpu import codes
from fpsim.program import ELEMENTARY

# SPREAD_ONCE: in the first step of a call only, for what does not change in it.
LESS, WHERE, REMAINDER, SPREAD, PRODUCT, REDUCE, SPREAD_ONCE = range(64, 71)
FUNCTIONS = {kind: 80 + number for number, kind in enumerate(ELEMENTARY)}  # elementary functions
FIRST_FUNCTION = 80
SIGMOID, TANH, EXP = FUNCTIONS["sigmoid"], FUNCTIONS["tanh"], FUNCTIONS["exp"]
KINDS = {**codes.KINDS, "less": LESS, "where": WHERE, "rem": REMAINDER, "sum": REDUCE, "dot": REDUCE, **FUNCTIONS}

# Columns of the table of operations. A place is two columns: where it begins, and how much further in the next block.
# NUMBER: of the record, of the line before that MOVED looks at, of the row in the table of details.
KIND, SLOT, SIZE, DESTINATION, A, B, C, WORD, LEFT, RIGHT, SWAMPED, NUMBER = 0, 1, 2, 3, 5, 7, 9, 11, 12, 13, 14, 15
COLUMNS = 16

# Details of a view: where it begins, per block, strides of up to four axes, whether it has lanes; then the index of a
# gather: the axis (-1: none), where it begins, per block, whether it has lanes, and the stride of what it picks.
BASE, PER_BLOCK, STRIDES, LANES, INDEXED, INDEX, INDEX_BLOCK, INDEX_LANES, INDEX_STRIDE = 0, 1, 2, 6, 7, 8, 9, 10, 11
VIEW = 12
AXES = 4
# Details of SPREAD: lengths of the four axes of the result, then a view.
# Details of REDUCE: outer, terms, inner, order, block, what is summed, strides of the element numbers of the three, the
# groups of words of product and sum (-1: none), then two views with the axes outer, terms, inner.
OUTER, TERMS, INNER, ORDER, BLOCK, OPERANDS, NUMBERS, GROUP_PRODUCT, GROUP_SUM = 0, 1, 2, 3, 4, 5, 6, 9, 10
VIEWS = 11
DETAILS = VIEWS + 2 * VIEW
TERMS_ALONE, PRODUCTS, FUSED = range(1, 4)  # numbers; products, rounded; products that enter the sum exactly
SEQUENTIAL, PAIRWISE, BLOCKED = range(3)
ORDERS = {"sequential": SEQUENTIAL, "pairwise": PAIRWISE, "blocked": BLOCKED}

# What ``whole.execute`` returns: done, or that an operation is left to Python.
DONE, LEFT_OPEN = -1, 0
# Columns of its state: block, step, line, whether the line is half done, and how many elements are open.
AT_BLOCK, AT_STEP, AT_LINE, HALF, OPEN = range(5)
STATE = 5
