"""PyTorch's side, a process of its own: its instruction set is chosen by the environment when it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.pytorch_bits.cases import SIZES, Case, gradients, start
from experiments.pytorch_bits.kernels import asked


class TorchSide:
    """A process that runs torch.optim under one ATEN_CPU_CAPABILITY.

    Parameters
    ----------
    capability : ``"DEFAULT"``, ``"AVX2"`` or ``"AVX512"``

    Attributes
    ----------
    facts : what PyTorch is: ``torch`` (version), ``capability``, ``root``, ``threads``
    """

    def __init__(self, capability: str) -> None:
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability.lower(), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.pytorch_bits.torch_side"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        self.facts: dict[str, Any] = json.loads(self._answer())

    def bits(self, case: Case, steps: int) -> dict[str, npt.NDArray[np.float64]]:
        """Parameter and states after every step: name in PyTorch -> ``[steps, sum(SIZES)]``, as binary64."""
        found = self._arrays({"case": vars(case), "steps": steps})
        return {name: _decoded(x, case.dtype) for name, x in found.items()}

    def kernel(self, name: str, dtype: str, foreach: bool) -> npt.NDArray[np.float64]:
        """What one ATen kernel answers: see ``kernels.asked``."""
        return self._arrays({"kernel": [name, dtype, foreach]})["answer"]

    def __enter__(self) -> TorchSide:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def _arrays(self, request: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        assert self._process.stdin is not None
        path = Path(self._folder.name) / "answer.npz"
        self._process.stdin.write(json.dumps({**request, "path": str(path)}) + "\n")
        self._process.stdin.flush()
        self._answer()
        with np.load(path) as found:
            return {name: found[name] for name in found.files}

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"PyTorch's process ended with status {self._process.wait()}; it says why on stderr")
        return line


def _decoded(bits: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float64]:
    """binary64 of the bit patterns of a dtype, of which NumPy lacks one; what is binary64 already stays."""
    if bits.dtype == np.float64:
        return bits
    if dtype == "bfloat16":
        single: npt.NDArray[np.float32] = (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return single.astype(np.float64)
    return bits.view(np.float32 if dtype == "float32" else np.float16).astype(np.float64)


def _run(case: Case, steps: int) -> dict[str, npt.NDArray[Any]]:
    """Bits after every step; a state of one number is repeated for the elements of its parameter."""
    import torch

    dtype = getattr(torch, case.dtype)
    whole = torch.int32 if case.dtype == "float32" else torch.int16
    given = torch.from_numpy(gradients(case.dtype, steps)).float().to(dtype)
    params = [x.clone() for x in torch.from_numpy(start(case.dtype)).float().to(dtype).split(SIZES)]
    optimizer = getattr(torch.optim, case.optimizer)(params, **case.arguments)
    found: dict[str, list[torch.Tensor]] = {}
    for g in given:
        for parameter, part in zip(params, g.split(SIZES), strict=True):
            parameter.grad = part.clone()
        optimizer.step()
        found.setdefault("param", []).append(torch.cat(params))
        for name in optimizer.state[params[0]]:
            if name != "step" and optimizer.state[params[0]][name] is not None:
                parts = [optimizer.state[p][name].expand(p.shape) for p in params]
                found.setdefault(name, []).append(torch.cat(parts))
    stacked = {name: torch.stack(rows) for name, rows in found.items()}
    return {
        name: (x.view(whole) if x.dtype == dtype and name != "mu_product" else x.double()).numpy()
        for name, x in stacked.items()
    }


def main() -> None:
    """Say what PyTorch is, then answer requests, a line each."""
    import torch

    from fpsim.optim.pytorch import capability, root

    torch.set_num_threads(1)
    facts = {"torch": torch.__version__, "capability": capability(), "root": root(), "threads": torch.get_num_threads()}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        arrays: dict[str, Any]
        if "kernel" in request:
            arrays = {"answer": asked(torch, *request["kernel"])}
        else:
            arrays = _run(Case(**request["case"]), request["steps"])
        np.savez(request["path"], **arrays)
        print("done", flush=True)


if __name__ == "__main__":
    main()
