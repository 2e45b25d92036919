"""Stands in for ``experiments.simulate``, ``experiments.defaults`` and the registries: rows that look like real ones.

``modules()`` are the stand-ins, by the name under which the code under test imports them; as a script this runs the
command line on them.
"""

import math
import os
import sys
import time
import types
import zlib

DELAY = "FAKE_SECONDS_PER_CELL"
NOISE = {"sgd": "none", "rmsprop": "gaussian", "adam": "gaussian"}


class Cancelled(Exception):
    pass


def setting(optimizer, problem):
    hyperparameters = {"lr": 0.01}
    if optimizer != "sgd":
        hyperparameters |= {"beta2": 0.999, "eps": 1e-8}
    if optimizer == "adam":
        hyperparameters |= {"beta1": 0.9}
    return {
        "noise": NOISE[optimizer],
        "sigma": 0.1,
        "batch": 16,
        "gradient": "exact",
        "dimension": 30,
        "steps": 2000,
        "window": 0.5,
        "hyperparameters": hyperparameters,
    }


class Problem:
    def __init__(self, dimension):
        self.smoothness = 10.0


def check_cell(cell, own):
    from experiments.fields import StudyError

    if cell.noise == "minibatch":
        raise StudyError("noise", "'minibatch' needs a problem with data")


def scalar_report(step, cell, *steps):
    warning = "scalar.beta2 = 0.999 becomes 1" if "beta2" in cell.hyperparameters and cell.mantissa_bits <= 8 else ""
    return [types.SimpleNamespace(name="scalar.beta2", warning=warning)]


class Step:
    slots = ("w.sub", "w", "g")
    expression = types.SimpleNamespace(symbols=lambda: {"beta2"})
    scalars = (types.SimpleNamespace(name="scalar.beta2", expression=expression),)

    def __init__(self, optimizer):
        self.hyperparameters = setting(optimizer, "")["hyperparameters"]

    def bind(self, **values):
        return self


STEPS = {name: Step(name) for name in NOISE}
PROBLEMS = dict.fromkeys(("quadratic", "rational", "logistic"), Problem)


class Expected:
    seconds, wall, bytes = 1.0, 1.0, 1000


def run_batch(cells, report, cancelled):
    rows = []
    for cell in cells:
        for _ in range(10):
            if cancelled():
                raise Cancelled
            time.sleep(float(os.environ.get(DELAY, 0)) / 10)
            report(cell.cost // 10)
        rows.append(row(cell))
    return rows


def run_batch_with_bad_cell(cells, report, cancelled):
    if any(cell.mantissa_bits == 3 for cell in cells):
        raise FloatingPointError("three bits\nare too few")
    return run_batch(cells, report, cancelled)


def run_batch_that_dies(cells, report, cancelled):
    if any(cell.mantissa_bits == 3 for cell in cells):
        os._exit(7)
    return run_batch(cells, report, cancelled)


def row(cell):
    """A floor that falls with the width down to what noise allows, and a bound somewhat above it."""
    from experiments.schema import NETWORK

    noise_floor = 0.0 if cell.noise == "none" else 2e-2
    steepness = 1.0 if cell.rounding == "nearest_even" else 0.5
    floor = math.hypot(4.0 * 2.0 ** (-steepness * cell.mantissa_bits), noise_floor)
    text = f"{cell.optimizer}{cell.problem}{cell.rounding}{cell.mantissa_bits}"
    floor *= 1 + 0.2 * (zlib.crc32(text.encode()) / 2**32 - 0.5) * (1 if cell.problem == "quadratic" else 3)
    applies = cell.mantissa_bits >= (2 if cell.optimizer == "sgd" else 5)
    bound = floor * (1.2 if cell.optimizer == "sgd" else 6.0 + 40 / cell.mantissa_bits) if applies else None
    seeds = [floor * (1 + 0.1 * math.sin(s + cell.mantissa_bits)) for s in range(cell.seeds)]
    return cell.columns() | {
        "key": cell.key,
        "outcome": "reached a floor" if cell.noise != "none" else "stagnated",
        "stationary": cell.mantissa_bits < 20 or cell.optimizer != "sgd",
        "window_steps": int(cell.steps * cell.window),
        "rms_gradient": floor,
        "rms_gradient_low": floor * 0.9,
        "rms_gradient_high": floor * 1.12,
        "rms_gradient_low999": floor * 0.8,
        "rms_gradient_high999": floor * 1.3,
        "loss_gap": floor**2,
        "loss_gap_low": floor**2 * 0.8,
        "loss_gap_high": floor**2 * 1.2,
        "frozen_share": 1.0 if cell.noise == "none" else 0.0,
        "theorem": {"sgd": "T6", "rmsprop": "T12"}.get(cell.optimizer, "T5"),
        "quantity": "largest |m|/sqrt(v)" if cell.optimizer == "adam" else "root mean square of the gradient norm",
        "measured": floor,
        "bound": bound,
        "bound_lower": bound and bound * (1 - 1e-12),
        "ratio": bound and bound / floor,
        "verdict": "holds" if applies else "not applicable",
        "reason": "" if applies else "stored 1 - beta2 is 0" if cell.optimizer != "sgd" else "alpha L u is above 1",
        "seeds_needed": None,
        "warnings": scalar_report(None, cell)[0].warning,
        "seed_rms_gradient": seeds,
        "seed_loss_gap": [s * s for s in seeds],
        "seed_frozen": [0.0] * cell.seeds,
        "trace_step": [0, cell.steps],
        "trace_rms_gradient": [4.0, floor],
        "trace_loss_gap": [8.0, floor**2],
        **dict.fromkeys(NETWORK),
        "diverged_at": None,
        "seconds": 0.0,
    }


def modules():
    def finder(known):
        return lambda name: (known[name], "")

    members = {
        "experiments.simulate": {"run_batch": run_batch},
        "experiments.defaults": {"setting": setting},
        "experiments.estimate": {"estimate": lambda batches, workers: Expected()},
        "experiments.trajectory": {"precision_of": lambda cell, program: cell, "check_cell": check_cell},
        "experiments.problems": {
            "PROBLEMS": PROBLEMS,
            "find": finder(PROBLEMS),
            "available": lambda: list(PROBLEMS),
            "options_of": lambda factory: {},
        },
        "experiments.problems.base": {"Problem": Problem},
        "fpsim.optim": {"STEPS": STEPS, "find": finder(STEPS), "available": lambda: list(STEPS)},
        "fpsim.precision": {"scalar_report": scalar_report, "Precision": None},
    }
    made = {name: types.ModuleType(name) for name in members}
    for name, module in made.items():
        module.__dict__.update(members[name])
    return made


if __name__ == "__main__":
    import fpsim.rounding  # noqa: F401  (the real package, before some of its modules are replaced)

    sys.modules |= modules()
    from experiments.cli import main

    sys.exit(main())
