"""What an audit has seen: a record that is written as JSON, read again, and printed as a table."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpsim.audit_rules import Rule, own_precision

if TYPE_CHECKING:
    from rich.table import Table

KIND = "fpsim audit"
VERSION = 1
MOST_SAMPLES = 256  # of a log: a run of 10^6 steps must not fill the memory


class AuditLog:
    """The record of one audit.

    Attributes
    ----------
    record : plain data, what ``save`` writes:
        ``optimizer``, ``rule`` (None: not understood), ``every``, ``elements``, ``torch``; ``steps`` seen; ``tensors``
        name -> shape, dtype, dtypes of the moments, group, arithmetic ("torch", or "own" where a class of fpsim.optim
        rounds as its user chose); ``samples``, each a ``step``, the hyperparameters of the
        ``groups`` and the measurements of the ``tensors`` (``fpsim.audit_measure``), at most 256 spread over the run;
        ``errors``
    attached : whether it is still being filled

    Examples
    --------
    >>> log = AuditLog.empty("Adam", "adam", every=100, elements=None, torch="2.13.0")
    >>> log.names, log.understood, log.attached
    ([], True, False)
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.attached = False
        self._on_detach: Callable[[], None] = _nothing

    @classmethod
    def empty(cls, optimizer: str, rule: str | None, every: int, elements: int | None, torch: str) -> AuditLog:
        """The log of an audit that begins."""
        record: dict[str, Any] = {"kind": KIND, "version": VERSION, "torch": torch, "optimizer": optimizer}
        record |= {"rule": rule, "every": every, "elements": elements, "steps": 0}
        return cls(record | {"tensors": {}, "samples": [], "errors": []})

    @property
    def on_detach(self) -> Callable[[], None]:
        return self._on_detach

    @on_detach.setter
    def on_detach(self, action: Callable[[], None]) -> None:
        self._on_detach, self.attached = action, True

    def detach(self) -> None:
        """End the audit: remove the hooks, free all copies. What was measured stays; detaching again does nothing."""
        if self.attached:
            self._on_detach()
        self._on_detach, self.attached = _nothing, False

    def __enter__(self) -> AuditLog:
        if not self.attached:
            raise ValueError("this log is closed: nothing is being measured; fpsim.audit(optimizer) begins another")
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def steps(self) -> int:
        """Steps of the optimizer since the audit began."""
        return int(self.record["steps"])

    @steps.setter
    def steps(self, value: int) -> None:
        self.record["steps"] = value

    @property
    def every(self) -> int:
        return int(self.record["every"])

    @property
    def errors(self) -> list[str]:
        """Why measuring stopped, if it did."""
        errors: list[str] = self.record["errors"]
        return errors

    @property
    def understood(self) -> bool:
        """Whether the optimizer's moments are known; else only the weights were looked at."""
        return self.record["rule"] is not None

    @property
    def names(self) -> list[str]:
        return list(self.record["tensors"])

    def last(self, name: str) -> dict[str, Any]:
        """The latest measurements of a tensor.

        Raises
        ------
        KeyError
            No tensor of this name was measured; the message lists those that were.
        """
        for sample in reversed(self.record["samples"]):
            if name in sample["tensors"]:
                found: dict[str, Any] = sample["tensors"][name]
                return found
        raise KeyError(f"no measurement of {name!r}; measured: {', '.join(self.names) or 'nothing yet'}")

    def describe(
        self, name: str, group: int, w: Any, state: Mapping[str, Any], rule: Rule | None, options: Mapping[str, Any]
    ) -> None:
        """Note what a tensor is."""
        moments = {"m": rule.m, "v": rule.v} if rule is not None else {}
        present = {role: state[key] for role, key in moments.items() if state.get(key) is not None}
        self.record["tensors"][name] = {
            "shape": list(w.shape),
            "dtype": _dtype(w),
            "moments": {role: _dtype(x) for role, x in present.items()},
            "device": w.device.type,
            "group": group,
            "arithmetic": "own" if own_precision(options) else "torch",
        }

    def add(self, groups: list[dict[str, Any]], tensors: dict[str, Any]) -> None:
        """Note the measurements of the present step; of very many samples every second one is given up."""
        samples = self.record["samples"]
        samples.append({"step": self.steps, "groups": groups, "tensors": tensors})
        if len(samples) > MOST_SAMPLES:
            del samples[1:-1:2]

    def save(self, path: str | Path) -> Path:
        """Write the record as JSON, whole or not at all; what is no file, such as a pipe, is written to as it is.

        Raises
        ------
        OSError
            The file cannot be written: there is no such folder, it is a folder itself, the disk is full, ..
        """
        file, text = Path(path).resolve(), json.dumps(self.record, indent=1) + "\n"  # a link stays one
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "this is a folder; the name of a file is needed", str(path))
        if not file.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(file.parent))
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
            return Path(path)
        temporary = file.with_name(f".{file.name}-{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> AuditLog:
        """Read what ``save`` wrote. The log is closed.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is no log of an audit, or one of a later version.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"path={str(path)!r}: there is no such file; AuditLog.save writes one")
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"path={str(path)!r} is no log of an audit: {error}") from error
        if not isinstance(record, dict) or record.get("kind") != KIND:
            raise ValueError(f"path={str(path)!r} is no log of an audit; AuditLog.save writes one")
        if record.get("version") != VERSION:
            raise ValueError(f"path={str(path)!r} has version {record.get('version')!r}; admissible: {VERSION}")
        missing = sorted(cls.empty("", None, 1, None, "").record.keys() - record.keys())
        if missing:
            raise ValueError(f"path={str(path)!r} is no whole log of an audit: {', '.join(missing)} is missing")
        return cls(record)

    def table(self) -> Table:
        """The latest measurements, one row a tensor, for ``rich.print``."""
        from fpsim.audit_table import table

        return table(self)

    def __str__(self) -> str:
        from fpsim.audit_table import text

        return text(self)


def _nothing() -> None:
    return


def _dtype(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")
