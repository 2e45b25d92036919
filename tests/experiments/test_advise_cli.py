"""``fpsim advise`` as its users meet it."""

import json
from pathlib import Path

import pytest

from experiments.cli import main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--optimizer", "adm"], "--optimizer: 'adm' is unknown (close: adam"),
        (["--format", "bfloat61"], "--format: "),
        (["--format", "float8_e8m0fnu"], "--format: float8_e8m0fnu has no sign or no zero"),
        (["--lr", "-1"], "--lr: -1 is outside (0, inf)"),
        (["--beta2", "1"], "--beta2: 1 is outside [0, 1)"),
        (["--gradients", "0"], "--gradients: 0 is outside [1e-30, 1e30]"),
        (["--noise", "-1"], "--noise: -1 is outside [0, 1e30]"),
        (["--weights", "x"], "--weights: 'x' is not a number"),
        (["--steps", "9"], "--steps: 9 is outside 100..1000000000"),
        (["--rounding", "best"], "--rounding: 'best' is unknown; admissible: nearest_even"),
        (["--arithmetic", "odd"], "--arithmetic: 'odd' is unknown; admissible: eager, fused, rounded"),
        (["--v", "stochastic99"], "--v: "),
        (["--optimizer", "sgd", "--v", "float32"], "--v: sgd keeps no v; it keeps w, g"),
        (["--optimizer", "sgd", "--beta2", "0.9"], "--beta2: sgd has no beta2; it has lr"),
        (["--set", "rho"], "--set: 'rho' is not NAME=X"),
        (["--set", "rho=1"], "--rho: adam has no rho; it has lr, beta1, beta2, eps"),
        (["--set", "lr=1"], "--set lr: it has a key of its own; write lr = 1"),
        (["--target-floor", "-1"], "--target-floor: -1 is outside [1e-30, 1e30]"),
        (["--file", "absent.toml"], "--file: absent.toml cannot be read"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"fpsim advise: error: {says}")
    assert printed.err.count("\n") == 1


def test_a_file_has_the_same_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('optimizer = "adam"\nformat = "float16"\ngradients = 0.1\nv = "float32"\n')
    assert main(["advise", "--file", str(file), "--gradients", "1e6"]) == 0
    printed = capsys.readouterr().out
    assert "formats: float16, v in float32" in printed and "gradients of 1e+06" in printed
    for text, says in (
        ("formt = 3\n", "formt: unknown key (close: format); admissible: optimizer, lr"),
        ("lr = -1.0\n", f"{file}: lr: -1 is outside (0, inf)"),
        ('v = 3\n', f"{file}: v: "),
        ("[hyperparameters]\nrho = 2.0\n", "adam has no rho"),
        ("hyperparameters = 3\n", "3 is no table"),
        ("lr = \n", "is not a TOML file"),
    ):  # fmt: skip
        file.write_text(text)
        assert main(["advise", "--file", str(file)]) == 2
        printed = capsys.readouterr().err
        assert says in printed and printed.count("\n") == 1, printed


def test_what_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "advice.json"
    words = ["--format", "float8_e4m3fn", "--gradients", "8", "--noise", "0", "--eps", "0.016", "--steps", "500"]
    assert main(["advise", *words, "--confirm", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "adam: lr 0.001, beta1 0.9, beta2 0.999, eps 0.016" in printed
    assert "1. PROBLEM: second moment" in printed and "simulated, as predicted" in printed
    assert "NOT AS PREDICTED" not in printed
    written = json.loads(file.read_text())
    assert [x["topic"] for x in written["findings"]] == ["second moment", "learning rate", "weights", "floor"]
    assert all(x["simulated"]["confirmed"] for x in written["findings"][:3])
    assert written["findings"][0]["fixes"][0]["flags"] == "--v stochastic"


def test_a_prediction_that_fails_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.advise.finding import Checked

    monkeypatch.setattr("experiments.advise.advice.confirm", lambda found: iter([Checked(False, "otherwise")]))
    assert main(["advise", "--confirm", "--format", "float16"]) == 1
    printed = capsys.readouterr()
    assert "SIMULATED, NOT AS PREDICTED: otherwise" in printed.out
    assert "predictions were not confirmed" in printed.err


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(found: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.advise.advice.confirm", interrupted)
    assert main(["advise", "--confirm", "--format", "float16"]) == 130
    assert capsys.readouterr().err.strip() == "fpsim: interrupted"
