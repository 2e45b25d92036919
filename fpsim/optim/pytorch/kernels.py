"""The ATen kernels that torch.optim is made of, for tensors on a CPU, as compositions of traced operations.

A kernel reads its operands in the parameter's dtype, computes in binary32 (slots ``NAME.wide``) and stores its result
in the dtype (slot ``NAME``); for float32 that store changes nothing. A Python number reaches a kernel as binary32
(scalar slots ``scalar.NAME.wide``) or, where ATen makes a tensor of it first, in the dtype (``scalar.NAME``). All of it
was found by experiment with torch 2.13.0 on x86 and is held by ``tests/fpsim/test_pytorch_bits.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fpsim.scalars import Number, ScalarExpression
from fpsim.tracing import NamedScalar, Value, fma, maximum, opaque, scalar, slot, sqrt

Root = Literal["exact", "mkl", "torch"]
Expression = ScalarExpression | Number


@dataclass(frozen=True)
class Kernels:
    """Which of ATen's code paths compute; ``fpsim.optim.pytorch.kernels_of`` has them for a dtype and a CPU.

    Parameters
    ----------
    contract : the compiler made one fma of the last product and sum of addcmul and lerp (AVX2 and AVX512, not DEFAULT)
    fused_add : ``add(alpha=)`` is an fma in binary32, else its product is rounded to the dtype. In
        float32 this goes with ``contract``. The 16-bit types round it under DEFAULT, and in the elements that are
        left over after the last full pair of vectors under AVX2 and AVX512
    tail : these elements are such left-overs, which scalar code computes: see ``lerp``
    foreach : the ``foreach=True`` implementation
    root : ``"exact"``: square roots are correctly rounded; ``"mkl"``: in float32 they are those of MKL, ``mkl_sqrt``;
        ``"torch"``: in float32 PyTorch itself is asked, where its bits are neither

    Examples
    --------
    >>> from fpsim import step
    >>> k = Kernels(contract=False)
    >>> print(step(lambda w, g, *, lr=0.1: {"w": k.add("w.add", w, g, "lr", -1 * lr)}, name="sgd"))
    program sgd: w, g
      scalar.lr = (-1 * lr)
      w.add.product.wide = mul(g, scalar.lr)
      w.add.product = round(w.add.product.wide)
      w.add.wide = add(w, w.add.product)
      w.add = round(w.add.wide)
      w <- w.add
    """

    contract: bool = True
    fused_add: bool | None = None
    tail: bool = False
    foreach: bool = False
    root: Root = "exact"

    def add(self, name: str, x: Value, y: Value, label: str, alpha: Expression) -> Value:
        """``x.add(y, alpha=alpha)``: x + alpha y, with alpha in the dtype."""
        factor = scalar(label, alpha)
        fused = self.contract if self.fused_add is None else self.fused_add
        if fused:
            return _stored(name, slot(f"{name}.wide", fma(y, factor, x)))
        product = _stored(f"{name}.product", slot(f"{name}.product.wide", y * factor))
        return _stored(name, slot(f"{name}.wide", x + product))

    def add_number(self, name: str, x: Value, label: str, number: Expression) -> Value:
        """``x.add_(number)``: one addition, of the number in the dtype (1e-8 is 0 in float16)."""
        return _stored(name, slot(f"{name}.wide", x + scalar(label, number)))

    def mul(self, name: str, x: Value, label: str, number: Expression, *, in_place: bool = True) -> Value:
        """``x.mul_(number)``: one product, with the number in binary32.

        ``_foreach_mul_`` has it in the dtype, where 0.999 is 1 for bfloat16; ``_foreach_mul`` (not in place) has not.
        """
        factor = scalar(label, number) if self.foreach and in_place else _wide(label, number)
        return _stored(name, slot(f"{name}.wide", x * factor))

    def div(self, name: str, x: Value, label: str, number: Expression) -> Value:
        """``x.div(number)``: a division by the number in binary32, not a product with its reciprocal."""
        return _stored(name, slot(f"{name}.wide", x / _wide(label, number)))

    def addcmul(self, name: str, x: Value, a: Value, b: Value, label: str, value: Expression) -> Value:
        """``x.addcmul_(a, b, value=value)``: x + (value a) b, in that order."""
        scaled = slot(f"{name}.scaled.wide", a * _wide(label, value))
        return _stored(name, self._sum(name, scaled, b, x))

    def addcdiv(self, name: str, x: Value, a: Value, b: Value, value: tuple[str, Expression] | Value) -> Value:
        """``x.addcdiv_(a, b, value=value)``: x + (value a) / b, in that order; never an fma.

        ``value`` is a name and an expression, or a traced number in binary32.
        """
        factor: Any = value if isinstance(value, Value) else _wide(*value)
        scaled = slot(f"{name}.scaled.wide", a * factor)
        quotient = slot(f"{name}.quotient.wide", scaled / b)
        return _stored(name, slot(f"{name}.wide", x + quotient))

    def lerp(self, name: str, start: Value, end: Value, label: str, weight: Expression, *, near_start: bool) -> Value:
        """``start.lerp_(end, weight)`` with the weight in binary32.

        ``near_start``, |weight| < 1/2: start + weight (end - start). Else vectors compute (weight - 1) (end - start) +
        end, and tails end - (end - start) (1 - weight); these differ in the sign of a zero where the weight is 1.
        """
        difference = slot(f"{name}.difference.wide", end - start)
        factor = _wide(label, weight)
        if near_start:
            return _stored(name, self._sum(name, difference, factor, start))
        if not self.tail:
            back = slot(f"{name}.back.wide", difference.trace.append("sub", (factor, scalar("one.wide", 1))))
            return _stored(name, self._sum(name, difference, back, end))
        back = slot(f"{name}.back.wide", difference.trace.append("sub", (scalar("one.wide", 1), factor)))
        opposite = slot(f"{name}.opposite.wide", -back)
        return _stored(name, self._sum(name, difference, opposite, end))

    def sqrt(self, name: str, x: Value) -> Value:
        """``x.sqrt()``: correctly rounded in the 16-bit types; ``root`` says what it is in float32."""
        if self.root != "exact":
            return slot(name, opaque(f"{self.root}_sqrt", x))
        return _stored(name, slot(f"{name}.wide", sqrt(x)))

    def maximum(self, name: str, x: Value, y: Value) -> Value:
        """``torch.maximum(x, y)``; exact."""
        return slot(name, maximum(x, y))

    def negative(self, name: str, x: Value) -> Value:
        """``-x``; exact."""
        return slot(name, -x)

    def _sum(self, name: str, a: Value, b: Value | NamedScalar, c: Value) -> Value:
        if self.contract:
            return slot(f"{name}.wide", fma(a, b, c))
        return slot(f"{name}.wide", c + slot(f"{name}.product.wide", a * b))


AVX2 = Kernels()


def _stored(name: str, value: Value) -> Value:
    return slot(name, value.trace.append("round", (value,)))


def _wide(label: str, number: Expression) -> NamedScalar:
    return scalar(f"{label}.wide", number)
