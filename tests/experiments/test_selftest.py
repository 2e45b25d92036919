"""``fpsim selftest``: it finds what is wrong, and says so in a way that can be repeated; any process, same cases."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiers import slow_but

import fpsim
from experiments.cli import main, selftest
from experiments.selftest import batches, codes, contractions, operations, programs
from experiments.selftest import run as runner
from experiments.selftest.batches import Choice, planned, size_of
from experiments.selftest.formats import FORMATS, MODES, drawn_modes, mode_of, random_format
from experiments.selftest.outcome import Outcome, bits
from experiments.selftest.ties import Ties
from fpsim import exact
from fpsim.cpu import codes as tier_codes
from fpsim.cpu import flat, flat_again, flat_single_operations, tiers
from fpsim.rounding import CODES, Stochastic, asked_bits

ROOT = Path(__file__).parents[2]
FEW = ["--format", "bfloat16", "--rounding", "nearest_even,stochastic8B", "--processes", "1"]
SMALL = ["selftest", "--operation", "add,mul,codes", "--cases", "4000", *FEW]


def flipped(function, at):
    """The same function, but for the last bit of one result."""

    def wrong(*given, **more):
        result = np.array(function(*given, **more))
        flat = result.reshape(-1)
        flat[at] = np.nextafter(flat[at], np.array(np.inf, flat.dtype)) if np.isfinite(flat[at]) else 1.0
        return result

    return wrong


def test_right_bits_are_found_right(tmp_path, capsys):
    file = tmp_path / "record.json"
    assert main([*SMALL, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "WRONG" not in printed
    assert [line.split()[0] for line in printed.splitlines()[1:6]] == ["operation", "add", "mul", "codes", "all"]
    record = json.loads(file.read_text())
    assert (record["wrong"], record["finished"], record["seed"]) == (0, True, 0)
    assert record["cases"] >= 4000 and {"date", "processor", "versions", "seconds"} <= set(record)
    assert set(record["operations"]) == {"add", "mul", "codes"}
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_one_wrong_bit_is_found_and_can_be_repeated(tmp_path, capsys, monkeypatch):
    file = tmp_path / "record.json"
    right = fpsim.add
    monkeypatch.setattr(fpsim, "add", flipped(right, 7))
    assert main([*SMALL, "--json", str(file)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("WRONG: add(") >= 1 and "WRONG: mul" not in printed
    assert "please report it" in printed
    record = json.loads(file.read_text())
    assert record["operations"]["mul"]["wrong"] == 0 < record["operations"]["add"]["wrong"]
    for found in record["mismatches"]:
        operands = [float.fromhex(x) for x in found["operands"]]
        mode = mode_of(found["rounding"])[0]
        expected = exact.operation("add", operands, fpsim.format("bfloat16"), mode, found["word"])
        assert bits(expected) == bits(float.fromhex(found["expected"])) != bits(float.fromhex(found["got"]))
        monkeypatch.setattr(fpsim, "add", right)
        again = eval(found["call"], {"fpsim": fpsim, "np": np})
        assert bits(again) == bits(expected)


def test_a_call_that_raises_counts_as_wrong(capsys, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("here\nand there")

    monkeypatch.setattr(fpsim, "mul", broken)
    assert main(SMALL) == 1
    assert "got ZeroDivisionError: here and there, right is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "operation", "function"),
    [("matmul", "contractions", None), ("sum", "contractions", None), ("decode", "codes", None),
     ("encode", "codes", lambda x, fmt: np.roll(fpsim.codes.encode(x, fmt), 1)), ("exp", "exp", None)],
)  # fmt: skip
def test_every_topic_notices(name, operation, function, monkeypatch):
    wrong = 0
    monkeypatch.setattr(fpsim, name, function or flipped(getattr(fpsim, name), 2))
    for number in range(4):
        wrong += batches.check(Choice(3, formats=("bfloat16",)), number, operation).wrong
    assert wrong


@pytest.fixture
def trust(monkeypatch):
    """Make the array functions take binary64's result as exact where ``wrongly(kind, ranges, fmt, mode)`` says so."""

    def forget():
        flat.plan.cache_clear()
        flat_again._again.clear()

    def install(wrongly):
        def choose(kind, ranges, fmt, mode):
            right = tiers.choose(kind, ranges, fmt, mode)
            return tier_codes.PLAIN if right == tier_codes.ODD and wrongly(kind, ranges, fmt, mode) else right

        monkeypatch.setattr(flat, "choose", choose)
        forget()

    yield install
    forget()


@pytest.mark.parametrize(
    ("kind", "wrongly"),
    [
        pytest.param(
            "mul",
            lambda kind, ranges, fmt, mode: ranges[0].precision + ranges[1].precision in (54, 55, 56),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "div",
            lambda kind, ranges, fmt, mode: fmt.precision + asked_bits(mode) + ranges[1].precision in (54, 55, 56),
            marks=pytest.mark.slow,
        ),
        ("add", lambda kind, ranges, fmt, mode: mode == "down"),
    ],
)
def test_a_proof_that_is_off_by_a_few_bits_is_found(kind, wrongly, trust):
    """Products of 54 bits, quotients closer to a tie than binary64 tells: random operands would not find these."""
    trust(wrongly)
    choice = Choice(seed=7, operations=(kind,), modes=("nearest_even", "down"))
    assert any(batches.check(choice, number, kind).wrong for number in range(120))


def test_quotients_that_lose_what_is_left_below_binary64_are_found(trust, monkeypatch):
    """The last bits that a quotient leaves of its numerator lie below 2^-1074: rounding to odd does not see them."""
    right = tiers._in_range

    def in_range(kind, operands):
        low = operands[0].low - operands[-1].high - 1
        return right(kind, operands) or (kind == "div" and low >= -1022 and low - 52 + operands[1].lsb >= -1074 - 30)

    trust(lambda *_: False)
    monkeypatch.setattr(tiers, "_in_range", in_range)
    choice = Choice(7, ("div",), modes=("nearest_even",))
    assert any(batches.check(choice, number, "div").wrong for number in range(120))


def test_products_that_24_bits_round_twice_are_found(trust, monkeypatch):
    """In 32-bit lanes, with no number among the cases that makes their block take the wide lanes."""
    right = flat_single_operations.plain

    def plain(kind, ranges, fmt, mode, asked, width):
        return right(kind, ranges, fmt, mode, asked, width + 3)

    trust(lambda *_: False)
    monkeypatch.setattr(flat_single_operations, "plain", plain)
    choice = Choice(7, ("mul",), modes=("nearest_even",))
    assert any(batches.check(choice, number, "mul").wrong for number in range(120))


def test_an_error_outside_of_what_is_compared_counts(monkeypatch):
    monkeypatch.setattr(contractions, "drawn_accumulator", lambda *_: 1 / 0)
    outcome = batches.check(Choice(), 0, "contractions")
    assert (outcome.cases, outcome.wrong) == (20, 20)
    assert outcome.mismatches[0].got == "ZeroDivisionError: division by zero"


def test_a_program_that_is_run_wrongly_is_noticed(monkeypatch):
    right = fpsim.run

    def wrong(program, *given, device, **more):
        result = right(program, *given, device=device, **more)
        if device == "cpu":
            result.state["w"][1, 1] += 1.0
        return result

    choice = Choice(formats=("bfloat16", "binary16"))
    assert [batches.check(choice, number, "programs").wrong for number in range(3)] == [0, 0, 0]
    monkeypatch.setattr(fpsim, "run", wrong)
    found = [batches.check(choice, number, "programs") for number in range(3)]
    assert any(outcome.wrong == 1 for outcome in found)
    told = next(outcome.mismatches[0] for outcome in found if outcome.wrong == 1)
    assert told.operands[0].endswith("state w[3]")
    assert told.call.startswith("experiments.selftest.batches.compared(Choice(seed=0, ")


@pytest.mark.parametrize(
    "operation", slow_but(batches.OPERATIONS, "add", "min", "exp", "codes", "contractions", "programs")
)
def test_a_batch_is_right_and_a_function_of_seed_and_number(operation):
    choice = Choice(seed=5, modes=("nearest_even", "down", "stochastic16"), formats=("bfloat16", "binary16"))
    outcome = batches.check(choice, 11, operation)
    assert (outcome.wrong, outcome.mismatches) == (0, [])
    assert outcome.cases >= size_of(operation)
    if operation in operations.KINDS + operations.ELEMENTARY:
        calls = [
            operations.drawn_call(operation, np.random.default_rng([5, number]), 16, (), "down")
            for number in (11, 11, 12)
        ]
        assert repr(calls[0]) == repr(calls[1]) != repr(calls[2])


def test_processes_check_the_same_cases():
    choice = Choice(2, ("round", "codes", "neg"), ("bfloat16",), ("nearest_even",))
    plan = planned(choice, 12_000)
    assert plan == planned(choice, 12_000)[: len(plan)]
    found = []
    for processes in (1, 2):
        report = runner.Report()
        done = []
        runner.execute(choice, plan, processes, report, done.append)
        assert len(done) == len(plan) == report.batches
        found.append({name: (outcome.cases, outcome.wrong) for name, outcome in report.outcomes.items()})
    assert found[0] == found[1]
    assert report.cases >= 12_000


def test_operations_take_turns_as_planned():
    names = [operation for _, operation in planned(Choice(), 100_000)]
    assert set(names) == set(batches.OPERATIONS)
    assert names.count("add") == pytest.approx(4 * names.count("exp"), abs=4)
    assert sum(map(size_of, names)) - size_of(names[-1]) < 100_000 <= sum(map(size_of, names))


def test_ties_are_turning_points_or_close_to_them():
    """At least a third of the products are within 2^-40 of a gap of a tie or a number, but not on it."""
    fmt = fpsim.format("bfloat16")
    ties = Ties(fmt, "nearest_even", [fpsim.format("binary64")], np.random.default_rng(0))
    close = 0
    for _ in range(300):
        value = exact.value("mul", ties.of("mul"))
        scaled = 2 * value.magnitude / exact.quantum(value.magnitude, fmt)
        close += 0 < abs(scaled - round(scaled)) < 2.0**-40
    assert close > 100


def test_formats_and_modes_are_spread():
    generator = np.random.default_rng(1)
    drawn = [random_format(generator) for _ in range(400)]
    for name in ("subnormals", "signed", "tiny", "parity", "odd_overflow", "overflow", "specials"):
        assert len({getattr(fmt, name) for fmt in drawn}) > 1, name
    assert all(fpsim.format(name) for name in FORMATS)
    assert len(MODES) == 18 and set(mode_of("stochastic")) | set(CODES) == set(MODES)
    assert [sum(isinstance(mode, Stochastic) for mode in drawn_modes(generator, MODES, n)) for n in (4, 1)] == [2, 0]
    assert drawn_modes(generator, ("up",), 4) == ["up"]
    with pytest.raises(ValueError, match="'stochastic40' is unknown; admissible: nearest_even"):
        mode_of("stochastic40")


def test_nan_and_zeros_are_told_apart():
    outcome = Outcome()
    outcome.compare([np.nan, 0.0, 1.0], [np.nan, -0.0, 1.0], lambda i: i)
    assert (outcome.cases, outcome.wrong, outcome.mismatches) == (3, 1, [1])


def test_codes_that_stand_for_several_things():
    for name in ("float8_e4m3fnuz", "float8_e8m0fnu", "p3109_k6p2ue", "float6_e3m2fn"):
        fmt = fpsim.format(name)
        given = np.arange(1 << fmt.bits)
        assert (bits([codes.value_of(int(code), fmt) for code in given]) == bits(fpsim.decode(given, fmt))).all()


def test_interrupted_says_what_was_checked(tmp_path, capsys, monkeypatch):
    def stop(choice, number, operation):
        if number == 2:
            raise KeyboardInterrupt
        return Outcome(cases=100)

    monkeypatch.setattr(runner, "check", stop)
    file = tmp_path / "record.json"
    assert main([*SMALL, "--json", str(file)]) == 130
    assert capsys.readouterr().err == "fpsim selftest: interrupted; 200 cases were checked, 0 were wrong\n"
    assert json.loads(file.read_text())["finished"] is False


@pytest.mark.parametrize("wait", slow_but([0.1, 0.6, 2.0], 0.1))
def test_ctrl_c_ends_all_processes(wait):
    command = [sys.executable, "-m", "experiments.cli", "selftest", "--cases", "1e7", "--processes", "2"]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(wait)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "interrupted" in said and said.count("\n") == 1


def test_ctrl_c_twice_is_no_traceback():
    command = [sys.executable, "-m", "experiments.cli", "selftest", "--cases", "1e7", "--processes", "2"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(1.0)
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in said, said


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_workers_of_a_driver_that_was_killed_end_too():
    command = [sys.executable, "-m", "experiments.cli", "selftest", "--cases", "1e7", "--processes", "2"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def children():
        listed = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        return [int(one) for one in listed if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]

    try:
        for _ in range(300):
            if len(workers := children()) == 2:
                break
            time.sleep(0.05)
        time.sleep(1.0)  # they have begun
    finally:
        child.kill()
        child.wait()
    assert len(workers) == 2
    for _ in range(200):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            return
        time.sleep(0.05)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    raise AssertionError("workers outlived the driver")


def test_what_breaks_is_one_line(capsys, monkeypatch):
    def broken(choice, number, operation):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(runner, "check", broken)
    assert main(SMALL) == 1
    assert capsys.readouterr().err.startswith("fpsim selftest: stopped: RuntimeError: two lines; 0 cases were checked")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cases", "0"], "--cases: 0 is outside 1..1e9"),
        (["--cases", "1.5"], "--cases: '1.5' is not a whole number"),
        (["--cases", "inf"], "--cases: inf is outside 1..1e9"),
        (["--operation", "adds"], "--operation: 'adds' is unknown (close: add"),
        (["--format", "bfloat17"], "--format: format 'bfloat17' is unknown; did you mean bfloat16"),
        (["--rounding", "stochastic0"], "--rounding: 'stochastic0' is unknown; admissible: nearest_even"),
        (["--seed", "-1"], "--seed: -1 is outside 0..9223372036854775807"),
        (["--processes", "many"], "--processes: 'many' is not a whole number; admissible: 1..4096"),
        (["--processes", ""], "--processes: '' is not a whole number; admissible: 1..4096"),
        (["--json", "x" * 300], f"--json: '{'x' * 300}' cannot be written: File name too long"),
        (["--json", "absent/record.json"], "--json: 'absent' is no folder that can be written to"),
        (["--json", os.devnull], f"--json: '{os.devnull}' is a device or a pipe"),
        (["--json"], "--json: expected one argument"),
    ],
)
def test_bad_input_is_one_line(words, says, capsys, monkeypatch):
    monkeypatch.setattr(selftest, "_check", None)
    assert main(["selftest", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fpsim selftest: error: " + says)
    assert printed.err.count("\n") == 1


def test_help_needs_no_library():
    code = "import sys; from experiments.cli import main\ntry: main(['selftest','-h'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert "Are the bits right here?" in " ".join(done.stdout.split())
    assert not {"numpy", "numba", "rich", "fpsim", "torch"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("topic", [contractions, programs])
def test_what_is_drawn_is_admissible(topic):
    generator = np.random.default_rng(4)
    for _ in range(50):
        if topic is contractions:
            contractions.drawn_accumulator(generator, (), MODES)
        else:
            program = programs.drawn_program(generator)
            programs.drawn_precision(generator, program, (), MODES).resolve(program)
