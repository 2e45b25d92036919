"""The lines that say how far a run is."""

from experiments.cli import progress


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


def test_the_time_left_is_that_of_whoever_knows_it(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    left = [None, 30.0]
    with progress.Progress(12, 1000, left=lambda: left.pop(0)) as bar:
        bar.advance(100, cells=1)
        clock.now += 10
        bar.advance(100, cells=2)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "fpsim scan: 1/12 cells, 0:00 elapsed"
    assert second == "fpsim scan: 3/12 cells, 25 %, 0:10 elapsed, about 0:30 left"


def test_else_at_the_mean_speed(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 5.0)
    with progress.Progress(4, 4, "fpsim bench") as bar:
        bar.advance(1, cells=1)
        clock.now += 3600
        bar.advance(1, cells=1)
    assert capsys.readouterr().err == "fpsim bench: 2/4 cells, 50 %, 1:00:00 elapsed, about 1:00:00 left\n"


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress(2, 2, left=lambda: 1.0) as bar:
        bar.printed -= 1.0
        bar.advance(1, cells=1)
        bar.say("a line")
        assert 0 < bar.share < 1
    assert "a line" in capsys.readouterr().err
