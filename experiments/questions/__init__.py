"""Questions that the literature leaves open, each answered by a study that ships: one file a question.

A file has a constant ``QUESTION``. ``fpsim questions [NAME ..]`` runs the studies, prints the table and the finding,
and with ``--json FILE`` writes both; the record of all of them is ``experiments/records/questions.json``.

>>> "components" in questions()
True
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from experiments.questions.question import Question


@functools.cache
def questions() -> dict[str, Question]:
    """All questions by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "question")
    return {name: importlib.import_module(f"{__name__}.{name}").QUESTION for name in names}
