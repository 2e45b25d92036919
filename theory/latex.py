"""Theorems as a LaTeX document: statement, what it is about, every step with its justification, every axiom's source.

The prose is the docstring of the theorem's file. Formulas are broken between terms, and a line that is still too wide
is scaled down by LaTeX itself. The document needs no package but amsmath, geometry and graphicx.

>>> from theory.theorems import theorem
>>> print(document([theorem("T6")]).splitlines()[0])
\\documentclass[10pt,a4paper]{article}
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from theory.decision import Domain
from theory.derivation import Axiom, Claim, Combine, Derivation, Given, Identity, Instance, Sign
from theory.theorem import Theorem
from theory.theorems import prose

WIDTH = 78  # symbols of a line of formulas
_RELATIONS = {"==": "=", "<=": r"\le", "<": "<"}
_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "–": "--", "—": "---", "’": "'", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "∞": r"$\infty$", "§": r"\S{}",
}  # fmt: skip
_TIGHTNESS = {
    "law": "a law: the quantity lies on both sides",
    "exact": "exact: attained",
    "sharp": "sharp: attained up to a small factor",
    "upper": "an upper bound",
}
_HEAD = r"""\documentclass[10pt,a4paper]{article}
\usepackage[margin=2cm]{geometry}
\usepackage{amsmath,amssymb,graphicx}
\allowdisplaybreaks
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\normallineskiplimit=2pt
\normallineskip=3pt
\emergencystretch=3em
\renewcommand{\labelitemi}{$\bullet$}
\newsavebox{\formula}
% a formula in one line, scaled down if it is wider than the line
\newcommand{\fit}[1]{\sbox{\formula}{$\displaystyle #1$}%
  \ifdim\wd\formula>\linewidth\resizebox{\linewidth}{!}{\usebox{\formula}}\else\usebox{\formula}\fi}
% number, formula, reason
\newcommand{\step}[3]{\par\makebox[2.4em][l]{#1}\parbox[t]{\dimexpr\linewidth-2.5em}{%
  \raggedright #2\\[1pt]{\footnotesize #3}\vspace{3pt}}\par}
"""


_HOW_TO_READ = (
    "A step is a claim and the reason for it, both checked by machine. "
    r"\emph{Sum of} ($i$) \emph{times} $c$, ...: right side minus left is identically the sum of $c$ times that of "
    "the steps named, and no $c$ of an inequality is negative."
)


def document(theorems: Sequence[Theorem]) -> str:
    """A whole document about some theorems, one section each."""
    body = "\n".join(line for theorem in theorems for line in _section(theorem))
    return f"{_HEAD}\\begin{{document}}\n{_HOW_TO_READ}\n\n{body}\n\\end{{document}}\n"


def formula(claim: Claim) -> list[str]:
    """The lines of a claim, each a formula without dollar signs."""
    left, right = _pieces(claim.left, WIDTH), _pieces(claim.right, WIDTH)
    return _filled([*left, f"{_RELATIONS[claim.relation]} {right[0]}", *right[1:]], WIDTH)


def expression(e: sp.Expr) -> str:
    """An expression as LaTeX; names of more than one letter upright."""
    names = {symbol: symbol_name(symbol) for symbol in e.free_symbols}
    return str(sp.latex(e, symbol_names=names, mul_symbol=r" \, "))


def symbol_name(symbol: sp.Symbol) -> str:
    r"""LaTeX of a symbol.

    >>> [symbol_name(sp.Symbol(name)) for name in ("alpha", "D0", "f_next", "lr", "size[v.add]")]
    ['\\alpha', 'D_{0}', 'f_{\\mathrm{next}}', '\\mathrm{lr}', '\\mathrm{size[v.add]}']
    """
    base, *below = symbol.name.split("_") if re.fullmatch(r"[A-Za-z0-9_+*]+", symbol.name) else [symbol.name]
    plain = re.fullmatch(r"([A-Za-z]+)(\d*)", base)
    word, digits = plain.groups() if plain else (base, "")
    name = str(sp.latex(sp.Symbol(word))) if plain else word
    name = name if len(word) == 1 or name.startswith(("\\", "{")) else rf"\mathrm{{{escape(word)}}}"
    indices = [digits] * bool(digits) + [x if len(x) < 2 or x.isdigit() else rf"\mathrm{{{x}}}" for x in below if x]
    return f"{name}_{{{','.join(indices)}}}" if indices else name


def escape(text: str) -> str:
    r"""Text that means itself in LaTeX.

    >>> print(escape("100 % of w_i <= 2^e"))
    100 \% of w\_i $\le$ 2\textasciicircum{}e
    """
    joined = text.replace("<=", "≤").replace(">=", "≥")
    return "".join(_ESCAPES.get(c, c if ord(c) < 0x250 else "?") for c in joined)


def _section(theorem: Theorem) -> Iterator[str]:
    yield rf"\section*{{{escape(f'{theorem.identifier}. {theorem.title}')}}}"
    yield rf"Bounds: {escape(theorem.quantity)}. Tightness: {_TIGHTNESS[theorem.tightness]}. "
    yield f"Source: {escape(theorem.source)}."
    yield r"\subsection*{Statement}"
    yield _lines(theorem.statement)
    yield r"\subsection*{Model and hypotheses}"
    yield from paragraphs(prose(theorem.identifier))
    proofs, axioms = _collected(theorem)
    for number, proof in enumerate(proofs):
        yield from _proof(proof, "Derivation" if number == 0 else "Lemma")
    if axioms:
        yield r"\subsection*{Axioms}"
        yield "What algebra cannot see; each is exercised numerically by the test named beside it."
    for axiom in axioms:
        conditions = f" Condition: {_inline(axiom.conditions)}." if axiom.conditions else ""
        reason = f"{escape(axiom.citation)}.{conditions} Test: {_code(axiom.test)}"
        yield rf"\step{{}}{{\textit{{{escape(axiom.name)}}}\\[2pt]{_lines(axiom.conclusion)}}}{{{reason}}}"


def _collected(theorem: Theorem) -> tuple[list[Derivation], list[Axiom]]:
    """The derivations of a theorem, the lemmas that they use behind them, and all axioms; each once."""
    proofs: list[Derivation] = []
    axioms: list[Axiom] = []
    waiting = list(theorem.derivations)
    while waiting:
        proof = waiting.pop(0)
        if any(proof is known for known in proofs):
            continue
        proofs.append(proof)
        used = [step.by.of for step in proof.steps if isinstance(step.by, Instance)]
        waiting += [x for x in used if isinstance(x, Derivation)]
        axioms += [x for x in used if isinstance(x, Axiom) and not any(x is known for known in axioms)]
    return proofs, axioms


def _proof(proof: Derivation, kind: str) -> Iterator[str]:
    title = proof.name if proof.name.startswith(kind) else f"{kind}: {proof.name}"
    yield rf"\subsection*{{{escape(title)}}}"
    yield _ranges(proof)
    for number, step in enumerate(proof.steps):
        prose_of = f" -- {escape(step.text)}" if step.text else ""
        yield rf"\step{{({number})}}{{{_lines(step.claim)}}}{{{_reason(step.by)}{prose_of}}}"


def _ranges(proof: Derivation) -> str:
    """Such as ``$a, b \\ge 0$; $L > 0$``."""
    claims = [*proof.givens, *(step.claim for step in proof.steps)]
    symbols = sorted(set().union(*(claim.symbols for claim in claims)), key=str)
    groups: dict[str, list[str]] = {}
    for symbol in symbols:
        groups.setdefault(_range(symbol, proof.domain), []).append(symbol_name(symbol))
    parts = (", ".join(f"${name}$" for name in [*names[:-1], f"{names[-1]} {kind}"]) for kind, names in groups.items())
    return f"Symbols: {'; '.join(parts)}."


def _range(symbol: sp.Symbol, domain: Domain) -> str:
    if symbol in domain:
        interval = domain[symbol]
        low, high = ("(" if interval.left_open else "["), (")" if interval.right_open else "]")
        return rf"\in {low}{expression(interval.start)}, {expression(interval.end)}{high}"
    kinds = (("positive", "> 0"), ("nonnegative", r"\ge 0"), ("negative", "< 0"), ("integer", r"\in \mathbb{Z}"))
    return next((text for kind, text in kinds if getattr(symbol, f"is_{kind}")), r"\in \mathbb{R}")


def _reason(by: Any) -> str:
    """A justification in words."""
    if isinstance(by, Given):
        return "hypothesis"
    if isinstance(by, Identity):
        return "algebra" + (f", with {_numbers(by.using)}" if by.using else "")
    if isinstance(by, Sign):
        if by.anchor is None:
            return "right minus left has this sign on the whole domain"
        symbol, point = by.anchor
        at = f"{symbol_name(symbol)} = {expression(sp.sympify(point))}"
        return f"true at ${at}$, and right minus left grows away from there on both sides"
    if isinstance(by, Combine):
        parts = [f"({number}) times {_math(expression(sp.sympify(c)))}" for number, c in by.multipliers.items()]
        return f"sum of {'; '.join(parts)}"
    assert isinstance(by, Instance)
    kind = "axiom" if isinstance(by.of, Axiom) else "lemma"
    changed = [(s, sp.sympify(value)) for s, value in by.mapping.items() if s != value]
    given = ", ".join(_math(f"{symbol_name(s)} := {expression(value)}") for s, value in changed)
    return rf"{kind} \textit{{{escape(by.of.name)}}}" + (f" with {given}" if given else "")


def _numbers(steps: Sequence[int]) -> str:
    return ", ".join(f"({number})" for number in steps)


def _lines(claim: Claim) -> str:
    first, *others = formula(claim)
    return r"\\[2pt]".join([rf"\fit{{{first}}}", *(rf"\fit{{\qquad {line}}}" for line in others)])


def _inline(claims: Sequence[Claim]) -> str:
    sides = ((expression(c.left), _RELATIONS[c.relation], expression(c.right)) for c in claims)
    return ", ".join(_math(" ".join(parts)) for parts in sides)


def _math(latex: str) -> str:
    """A formula within text; a line of its own, scaled down if need be, if it is as wide as a line."""
    return rf"\fit{{{latex}}}" if visible(latex) > WIDTH else f"${latex}$"


def _pieces(e: sp.Expr, width: int) -> list[str]:
    """LaTeX of an expression in pieces between which a line may end."""
    whole = expression(e)
    if visible(whole) <= width:
        return [whole]
    if isinstance(e, sp.Add):
        pieces: list[str] = []
        for number, term in enumerate(e.as_ordered_terms()):
            negative = bool(term.could_extract_minus_sign())
            first, *rest = _pieces(-term if negative else term, width)
            pieces += [("- " if negative else "+ " if number else "") + first, *rest]
        return pieces
    factors = sp.Mul.make_args(e)
    sums = [x for x in factors if isinstance(x, sp.Add) or (isinstance(x, sp.Pow) and isinstance(x.base, sp.Add))]
    sums = [x for x in sums if isinstance(x, sp.Add) or x.exp == 2]
    if not sums:
        return [whole]
    wide = max(sums, key=lambda x: visible(expression(x)))
    coefficient = sp.Mul(*(x for x in factors if x is not wide))
    inner, power = (wide, "") if isinstance(wide, sp.Add) else (wide.base, "^{2}")
    before = "" if coefficient == 1 else "- " if coefficient == -1 else _factor(coefficient)
    first, *rest = _pieces(inner, width - visible(before))
    pieces = [f"{before}\\bigl( {first}", *rest]
    return [*pieces[:-1], f"{pieces[-1]} \\bigr){power}"]


def _factor(coefficient: sp.Expr) -> str:
    text = expression(coefficient)
    return f"\\left({text}\\right) \\, " if isinstance(coefficient, sp.Add) else f"{text} \\, "


def _filled(pieces: Sequence[str], width: int) -> list[str]:
    """As many pieces a line as fit."""
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if visible(lines[-1]) + visible(piece) > width:
            lines.append(piece)
        else:
            lines[-1] += f" {piece}"
    return lines


def visible(latex: str) -> int:
    """About how many symbols wide a formula is; of a fraction the wider part counts.

    >>> visible(r"\\frac{a + b}{c} \\, x_{1}")
    5
    """
    return _count(re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", lambda m: max(m.groups(), key=_count), latex))


def _count(latex: str) -> int:
    text = re.sub(r"\\(?:mathrm|left|right|bigl|bigr|frac|,|!)", "", latex)
    return len(re.sub(r"[{}\s^_]|\\(?=[A-Za-z])", "", re.sub(r"\\[A-Za-z]+", "x", text)))


def paragraphs(docstring: str) -> Iterator[str]:
    """A docstring as LaTeX: its first line left out, what is indented by four as it stands, stars as items."""
    for block in docstring.strip().split("\n\n")[1:]:
        lines: list[str] = []
        for line in block.splitlines():
            if lines and _kind_of(line) == "text" and _kind_of(lines[-1]) != "code":
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(line)
        for kind, group in itertools.groupby(lines, _kind_of):
            yield _rendered(kind, list(group))
        yield ""


def _kind_of(line: str) -> str:
    return "item" if line.startswith("* ") else "code" if line.startswith("    ") else "text"


def _rendered(kind: str, lines: Sequence[str]) -> str:
    if kind == "code":
        shown = (re.sub(r" {2,}", lambda m: r"\ " * len(m.group()), _marked(line.strip())) for line in lines)
        return r"\begin{quote}\footnotesize\ttfamily\raggedright " + r"\\".join(shown) + r"\end{quote}"
    if kind == "item":
        return r"\begin{itemize}" + "".join(rf"\item {_marked(line[2:])}" for line in lines) + r"\end{itemize}"
    return _marked(" ".join(line.strip() for line in lines))


def _marked(text: str) -> str:
    """Prose: names between double backquotes in typewriter type, words between stars emphasised."""
    parts = text.split("``")
    marked = (_code(part) if number % 2 else escape(part) for number, part in enumerate(parts))
    return re.sub(r"(?<![\w*])\*(\w+)\*(?![\w*])", r"\\emph{\1}", "".join(marked))


def _code(text: str) -> str:
    """Typewriter type that may be broken behind slashes, colons, dots and underscores."""
    parts = re.split(r"(?<=[/:._])", text)
    return r"\texttt{" + r"\allowbreak{}".join(escape(part) for part in parts) + "}"
