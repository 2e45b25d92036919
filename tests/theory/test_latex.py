"""Theorems as LaTeX: well-formed always, and compiled where pdflatex is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sympy as sp

from theory.derivation import Claim, Derivation, Instance, le
from theory.digest import derivation_digest
from theory.latex import WIDTH, document, escape, expression, formula, paragraphs, symbol_name, visible
from theory.theorem import Theorem
from theory.theorems import prose, theorems

ALL = list(theorems().values())
ENVIRONMENT = re.compile(r"\\(begin|end)\{(\w+)\}")


def check_structure(text: str) -> None:
    """Balanced braces, environments and dollar signs; no underscore, caret or ampersand outside of formulas."""
    opened: list[str] = []
    for kind, name in ENVIRONMENT.findall(text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    body = text[text.index(r"\begin{document}") :]
    depth, math = 0, False
    tokens = re.findall(r"\\(?:[A-Za-z]+|.)|[{}$_^&#%]", body)
    in_formula = [0]  # depths at which an argument of \fit began
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token == "{":
            depth += 1
            if before == r"\fit":
                in_formula.append(depth)
        elif token == "}":
            if in_formula[-1] == depth:
                in_formula.pop()
            depth -= 1
            assert depth >= 0
        elif token == "$":
            math = not math
        elif token in "_^":
            assert math or len(in_formula) > 1, f"a raw {token} outside of a formula"
        else:
            assert token not in "&#%"
    assert depth == 0 and not math


@pytest.mark.parametrize("theorem", ALL, ids=lambda t: t.identifier)
def test_a_document_is_well_formed_and_complete(theorem: Theorem) -> None:
    text = document([theorem])
    check_structure(text)
    assert escape(theorem.title) in text
    for derivation in theorem.derivations:
        assert escape(derivation.name) in text
        for step in derivation.steps:
            assert escape(step.text) in text
            assert all(line in text for line in formula(step.claim))
            if isinstance(step.by, Instance) and not isinstance(step.by.of, Derivation):
                assert escape(step.by.of.citation) in text
    assert text.count(r"\step{(") == sum(len(d.steps) for d in with_lemmas(theorem))


def with_lemmas(theorem: Theorem) -> list[Derivation]:
    found: list[Derivation] = []
    waiting = list(theorem.derivations)
    while waiting:
        derivation = waiting.pop()
        if not any(derivation is x for x in found):
            found.append(derivation)
            used = [step.by.of for step in derivation.steps if isinstance(step.by, Instance)]
            waiting += [x for x in used if isinstance(x, Derivation)]
    return found


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_all_theorems_compile(tmp_path: Path) -> None:
    (tmp_path / "all.tex").write_text(document(ALL), encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, log[-3000:]
    assert "Missing character" not in log
    wide = [float(x) for x in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert max(wide, default=0.0) < 20.0, log
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_a_document_that_is_not_well_formed_is_noticed() -> None:
    good = document(ALL[:1])
    for old, new in ((r"\end{document}", ""), ("Symbols: $", "Symbols: "), (r"\fit{", ""), ("Bounds: ", "Bounds_of: ")):
        with pytest.raises((AssertionError, IndexError, ValueError)):
            check_structure(good.replace(old, new, 1))


def test_long_formulas_are_broken_between_terms() -> None:
    names = [sp.Symbol(f"x{k}", positive=True) for k in range(60)]
    plain = le(sp.Add(*names), sp.Symbol("y"))
    assert len(formula(plain)) > 2
    joined = " ".join(formula(plain))
    assert all(rf"x_{{{k}}}" in joined for k in range(60)) and joined.endswith(r"\le y")
    nested = Claim(sp.Symbol("y"), "<=", sp.Symbol("c") * sp.Add(*names) ** 2 / sp.Symbol("d") - sp.Symbol("e"))
    for claim in (plain, nested):
        lines = formula(claim)
        assert all(visible(line) <= WIDTH + 5 for line in lines)
        assert sum(line.count(r"\bigl(") for line in lines) == sum(line.count(r"\bigr)") for line in lines)
    assert formula(le(1, 2)) == [r"1 \le 2"]


def test_names_and_text() -> None:
    assert [symbol_name(sp.Symbol(name)) for name in ("m_+", "Delta", "x1", "grad", "scalar.one_minus_beta2")] == [
        "m_{+}",
        r"\Delta",
        "x_{1}",
        r"\mathrm{grad}",
        r"\mathrm{scalar.one\_minus\_beta2}",
    ]
    assert expression(2 * sp.Symbol("low") * sp.Symbol("lr")) == r"2 \, \mathrm{low} \, \mathrm{lr}"
    assert escape("a_b {c} \\ 5 % é ☃") == r"a\_b \{c\} \textbackslash{} 5 \% é ?"


def test_docstrings_become_paragraphs_items_and_code() -> None:
    docstring = (
        "Title.\n\nSome *stored* prose in ``w.sub``\nand more:\n    |a_i| <=  2\n    b\nend.\n\n* one\n  goes on\n* two"
    )
    text = "\n".join(paragraphs(docstring))
    assert "Title" not in text
    assert r"Some \emph{stored} prose in \texttt{w.\allowbreak{}sub} and more:" in text
    assert r"$|$a\_i$|$ $\le$\ \ 2\\b\end{quote}" in text
    assert r"\begin{itemize}\item one goes on\item two\end{itemize}" in text
    assert all(prose(theorem.identifier).startswith(theorem.identifier) for theorem in ALL)


def test_the_digest_changes_with_any_claim_or_axiom_and_not_with_prose() -> None:
    from dataclasses import replace

    theorem = theorems()["T6"]
    first, *others = theorem.derivations
    digests = {derivation_digest(theorem)}
    for number, step in enumerate(first.steps):
        for changed in (
            replace(step, claim=Claim(step.claim.left, step.claim.relation, step.claim.right * sp.Rational(65, 64))),
            replace(step, by=replace(step.by, multipliers={0: 2})) if hasattr(step.by, "multipliers") else None,
            replace(step, by=replace(step.by, of=replace(step.by.of, citation="")))
            if isinstance(step.by, Instance)
            else None,
        ):
            if changed is not None:
                steps = (*first.steps[:number], changed, *first.steps[number + 1 :])
                digests.add(derivation_digest(replace(theorem, derivations=(replace(first, steps=steps), *others))))
    assert len(digests) == 1 + 5 + 2 + 2
    reworded = tuple(replace(step, text="in other words") for step in first.steps)
    assert derivation_digest(replace(theorem, derivations=(replace(first, steps=reworded), *others))) in digests
    x, y = sp.symbols("x y")
    assert x + y == y + x
    weaker = sp.Symbol("x", real=True)
    some = [Derivation("d", (), (), le(value, 1)) for value in (x + y, x, weaker, sp.Max(x, y), sp.Min(x, y))]
    assert len({derivation_digest(replace(theorem, derivations=(d,))) for d in some}) == 5
