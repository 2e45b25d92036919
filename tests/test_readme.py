"""The README's list of theorems is that of ``theory.theorems``, and its answers are those of the record.

``python tests/test_readme.py`` writes both parts anew.
"""

import re
import textwrap
from pathlib import Path

import msgspec
import pytest

from experiments.questions import questions
from theory.theorems import theorems

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECORD = ROOT / "experiments" / "records" / "questions.json"


def theorem_rows():
    head = ["| | title | class | what it bounds | of |", "|---|---|---|---|---|"]
    rows = []
    for x in theorems().values():
        cells = (x.identifier, x.title, x.tightness, x.quantity, ", ".join(x.optimizers))
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join([*head, *rows])


def answers():
    """A paragraph for each question that the record answers, in its order; formulas are not broken before a sign."""
    paragraphs = []
    for name, found in msgspec.json.decode(RECORD.read_bytes())["questions"].items():
        text = re.sub(r" (?=[-+=<>/*] )", "\0", f"**{found['question']}** (`{name}`) {found['finding']}")
        lines = textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)
        paragraphs.append("\n".join(lines).replace("\0", " "))
    return "\n\n".join(paragraphs)


def pytorch_rows():
    """Values that differ, of those compared, by optimizer, dtype and implementation; all instruction sets together."""
    found = msgspec.json.decode((RECORD.parent / "pytorch_bits.json").read_bytes())["optimizers"]
    columns = list(dict.fromkeys((x["dtype"], x["implementation"]) for x in found))
    rows = ["| | " + " | ".join(f"{dtype} {how}" for dtype, how in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(x["optimizer"] for x in found):
        cells = [name]
        for column in columns:
            lines = [x for x in found if x["optimizer"] == name and (x["dtype"], x["implementation"]) == column]
            differ, compared = (sum(x[key] for x in lines) for key in ("mismatches", "values"))
            cells.append(f"{differ} of {compared / 1e6:.0f}M")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


PARTS = {"theorems": theorem_rows, "questions": answers, "pytorch": pytorch_rows}


def part(name):
    """Where a part stands, between its marks."""
    pattern = rf"(?<=<!-- {name}: tests/test_readme.py -->\n)\n.*?\n(?=\n<!-- end -->)"
    return re.compile(pattern, re.S)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_says_what_its_source_says(name):
    (found,) = part(name).findall(README.read_text(encoding="utf-8"))
    assert found.strip() == PARTS[name](), f"python {Path(__file__).name} writes it anew"


def test_every_question_is_answered():
    assert [*msgspec.json.decode(RECORD.read_bytes())["questions"]] == [*questions()]
    assert not [line for line in answers().splitlines() if re.match(r"\s*([-+*>#=]|\d+[.)]) ", line)]


def test_the_record_of_the_hunt_is_what_it_says():
    found = msgspec.json.decode((RECORD.parent / "verify.json").read_bytes())
    own = {name: line for name, line in found["theorems"].items() if name not in found["comparisons"]}
    assert found["finished"] and not found["violations"] and not found["troubles"] and found["selection"] is None
    cells = [line["cells"] for by_format in own.values() for line in by_format.values()]
    verdicts = sum(count for counts in cells for status, count in counts.items() if status != "not applicable")
    said = f"{found['runs']} runs of {found['cells']} cells, {len(own)} theorems: {verdicts} verdicts, none violated."
    assert said in " ".join(README.read_text(encoding="utf-8").split())
    assert found["runs"] >= 10**6


def test_the_constants_that_it_shows_are_what_is_printed(capsys):
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    (code,) = (block for language, block in blocks if language == "python" and "enclosures(" in block)
    (shown,) = (block for language, block in blocks if not language and "tensor-level" in block)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == shown


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    for name, made in PARTS.items():
        new = made()
        text = part(name).sub(lambda _, new=new: f"\n{new}\n", text)
    README.write_text(text, encoding="utf-8")
