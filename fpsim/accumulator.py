"""How a sum of products is computed: formats, roundings and the order of its operations.

With the terms t_0 .. t_{n-1} (products a_k b_k rounded to ``product``, or the numbers to add) and rd the rounding to
``sum``:

sequential   s = +0, then s = rd(s + t_k) for k = 0, 1, ...; with ``fma`` s = rd(s + a_k b_k), the product exact.
blocked      every ``block`` terms are a sequential sum S_j that starts from +0; then M = +0, M = rd_master(M + S_j).
pairwise     a tree: the terms lo .. hi - 1 are rd(left + right), split at mid = lo + the largest power of two below
             hi - lo; a single term inside the tree is taken as it is, a sum of one term alone is rd(+0 + t_0).
kahan        s = c = +0, then y = rd(t_k - c), u = rd(s + y), d = rd(u - s), c = rd(d - y), s = u.

The order is the same on every device and for every number of threads. Starting from +0, as an accumulator in hardware
does, makes a sum of negative zeros +0; the empty sum is +0.

Random bits of stochastic roundings are ``random_bits.program_draw`` of run 0, with element the C-order index in the
result:

===========================  ====  =====================================================
operation                    slot  step
===========================  ====  =====================================================
product a_k b_k              0     k
s + t_k                      1     k; ``mid`` for a node of a pairwise tree
M + S_j (blocked)            2     j
y = t_k - c (kahan)          2     k
d = u - s (kahan)            3     k
c = d - y (kahan)            4     k
===========================  ====  =====================================================

Where any of the roundings has more than 16 random bits, every draw is the top of a whole word of 32 bits: slots that
share a word would otherwise share bits.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, get_args

from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.rounding import Rounding, parse, random_bits
from fpsim.tensor_core import TensorCore, tensor_core

Order = Literal["sequential", "pairwise", "blocked", "kahan"]

PRODUCT, SUM = 0, 1
MASTER = 2  # of a blocked order
TERM, DIFFERENCE, CORRECTION = 2, 3, 4  # of a Kahan sum: y, d and c


@dataclass(frozen=True)
class Accumulator:
    """A way to compute sums of products. The module's docstring defines the orders and the random bits.

    Parameters
    ----------
    product : Format or its name; None with ``fma``
        Where products are rounded to. ``fpsim.sum`` has none and ignores it.
    sum : Format or its name
        The format of the running sum, and of the result unless there is a ``master``.
    order : "sequential", "pairwise", "blocked" or "kahan"
    block : int >= 1, terms of a block; for ``order="blocked"`` only, and needed there
    fma : bool
        The product enters the sum exactly: one rounding for each term. Sequential and blocked orders only.
    product_rounding, sum_rounding : rounding modes
    master : Format or its name, where the sums of blocks are added (default ``sum``);  master_rounding : its mode
        (default ``sum_rounding``). Blocked order only.

    Raises
    ------
    TypeError
        ``block`` is no integer, ``fma`` no bool, a format neither a Format nor a name, or a mode None.
    ValueError
        An unknown order, format or rounding, or fields that do not belong together.

    Examples
    --------
    >>> Accumulator("bfloat16", "binary32").result.name
    'e8m23'
    >>> Accumulator("bfloat16", "bfloat16", order="blocked", block=64, master="binary32").result.name
    'e8m23'
    """

    product: Format | str | None
    sum: Format | str
    order: Order = "sequential"
    block: int | None = None
    fma: bool = False
    product_rounding: Rounding = "nearest_even"
    sum_rounding: Rounding = "nearest_even"
    master: Format | str | None = None
    master_rounding: Rounding | None = None

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"order={self.order!r}; admissible: {', '.join(get_args(Order))}")
        if not isinstance(self.fma, bool):
            raise TypeError(f"fma={self.fma!r}; admissible: True, False")
        self._check_block()
        if self.fma and self.order not in ("sequential", "blocked"):
            raise ValueError(f"fma=True with order={self.order!r}; admissible: sequential, blocked")
        if self.product is None and not self.fma:
            raise ValueError("product=None: products that are not rounded need fma=True")
        if self.order != "blocked" and not (self.master is None and self.master_rounding is None):
            raise ValueError(f"master with order={self.order!r}; admissible: blocked")
        for name in ("sum", "product_rounding", "sum_rounding"):
            if getattr(self, name) is None:
                raise TypeError(f"{name}=None; admissible: {'a rounding mode' if 'rounding' in name else 'a format'}")
        for name in ("product", "sum", "master"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, named_format(given))
        for name in ("product_rounding", "sum_rounding", "master_rounding"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, parse(given))

    def _check_block(self) -> None:
        if self.order != "blocked":
            if self.block is not None:
                raise ValueError(f"block={self.block!r} with order={self.order!r}; admissible: None")
            return
        try:
            block = operator.index(self.block if not isinstance(self.block, bool) else None)  # type: ignore[arg-type]
        except TypeError as error:
            raise TypeError(f'block={self.block!r}: order="blocked" needs an integer of at least 1') from error
        if block < 1:
            raise ValueError(f"block={block}; admissible: at least 1")
        object.__setattr__(self, "block", block)

    @classmethod
    def uniform(cls, fmt: Format | str, rounding: Rounding = "nearest_even") -> Accumulator:
        """Products and a sequential sum in one format and mode.

        Examples
        --------
        >>> Accumulator.uniform("bfloat16").sum.name
        'e8m7'
        """
        return cls(fmt, fmt, product_rounding=rounding, sum_rounding=rounding)

    @staticmethod
    def tensor_core(
        device: str, operand: str, output: str = "binary32", zero_c: str = "exponent", right: str | None = None
    ) -> TensorCore:
        """A model of a GPU's matrix instructions, to be given in place of an Accumulator: ``fpsim.tensor_core``.

        Examples
        --------
        >>> Accumulator.tensor_core("h100", "bfloat16").terms
        16
        """
        return tensor_core(device, operand, output, zero_c, right)

    @property
    def result(self) -> Format:
        """The format of the result."""
        return self.master_slot[0]

    @property
    def product_slot(self) -> tuple[Format, Rounding] | None:
        """Format and mode of the products; None where they are exact."""
        return None if self.fma else (named_format(self.product or self.sum), self.product_rounding)

    @property
    def sum_slot(self) -> tuple[Format, Rounding]:
        return named_format(self.sum), self.sum_rounding

    @property
    def master_slot(self) -> tuple[Format, Rounding]:
        """Format and mode in which blocks are added up; those of the sum in other orders."""
        rounding = self.sum_rounding if self.master_rounding is None else self.master_rounding
        return named_format(self.sum if self.master is None else self.master), rounding

    def roundings(self, products: bool = True) -> dict[str, Rounding]:
        """The modes in use, of a sum of products or of a sum alone."""
        used = {"sum_rounding": self.sum_rounding}
        if products and not self.fma:
            used["product_rounding"] = self.product_rounding
        if self.order == "blocked":
            used["master_rounding"] = self.master_slot[1]
        return used

    def drawn_bits(self, products: bool = True) -> int:
        """What a draw is the top of: a word (32), a half (16), or nothing (0) where no mode is stochastic."""
        most = max(random_bits(mode) for mode in self.roundings(products).values())
        return 0 if most == 0 else 16 if most <= 16 else 32
