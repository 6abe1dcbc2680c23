"""Who is measured when."""

from tests.benchmarks.plan import FIGURES, FULL, QUICK, plan

CONTENDERS = ["ours", "arq", "floor"]


def test_contenders_take_turns_and_every_second_round_turns_round() -> None:
    steps = [(step.round, step.contender) for step in plan(QUICK, ["drain"], CONTENDERS, 2)]
    assert steps == [(1, "ours"), (1, "arq"), (1, "floor"), (2, "floor"), (2, "arq"), (2, "ours")]


def test_what_takes_long_or_does_not_vary_is_taken_once() -> None:
    steps = [*plan(FULL, FIGURES, ["ours"], 3)]
    rounds = {figure: sum(step.figure == figure for step in steps) for figure in FIGURES}
    every_round = {"drain": 3, "latency": 3, "enqueue": 3, "http": 3, "recovery": 3}
    assert rounds == {**every_round, "memory": 1, "sleepers": 3, "idle": 1}
    assert [step.workers for step in steps if step.figure == "sleepers"] == [10, 20, 40]


def test_peers_and_floor_are_asked_only_what_they_can_tell() -> None:
    asked = {(step.contender, step.figure) for step in plan(FULL, FIGURES, ["arq", "floor"], 1)}
    contested = {("arq", figure) for figure in ("drain", "latency", "enqueue", "memory")}
    assert asked == contested | {("floor", figure) for figure in ("drain", "latency", "enqueue")}


def test_http_has_contenders_of_its_own() -> None:
    asked = {(step.contender, step.figure) for step in plan(FULL, FIGURES, ["ours", "arq", "echo", "fastapi"], 1)}
    assert {contender for contender, figure in asked if figure == "http"} == {"ours", "echo", "fastapi"}
    assert {figure for contender, figure in asked if contender in {"echo", "fastapi"}} == {"http"}


def test_slow_peers_drain_fewer_jobs() -> None:
    sizes = {step.contender: step.size for step in plan(FULL, ["drain"], CONTENDERS, 1)}
    assert sizes == {"ours": FULL.drain, "arq": FULL.drain_of_slow, "floor": FULL.drain}
