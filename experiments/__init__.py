"""The studies: problems, runs, floors, stores, engines and the command line.

>>> from experiments import Study
>>> len(Study(optimizer="sgd", problem="quadratic", mantissa="4..7").cells())
8
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.study import Study, StudyError

__all__ = ["Study", "StudyError"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: the command line prints its help without any of it."""
    if name in __all__:
        from experiments import study

        return getattr(study, name)
    raise AttributeError(f"module 'experiments' has no attribute {name!r}")
