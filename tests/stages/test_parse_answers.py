"""ParseAnswers through the runner."""

from dataclasses import replace
from decimal import Decimal

import apache_beam as beam
import pytest

from tests.stages.harness import SCHEMA, asked_row, make_request, request_id, run_stage
from transforms.parse_answers import ParseAnswers
from transforms.records.answer import ModelAnswer
from transforms.records.failure import FailureKind, Stage
from transforms.records.request import Lane, PriorAttempt, unpack
from transforms.records.usage import Usage
from transforms.rules.answer import AnswerReader
from transforms.rules.fingerprint import RequestIdentity

GOOD = '{"label":"positive"}'


def make_answer(name, text, kind=FailureKind.OK, request=None, **changes):
    """Return a call's answer."""
    values = {"reason": None, "attempts": 1, "call_id": f"call-{name}", "run_id": "r1", "reused": False}
    values |= {"response_model": "m", "usage": Usage(10, 2), "cost_usd": Decimal("0.1")}
    return ModelAnswer(asked=request or make_request(name), kind=kind, text=text, **{**values, **changes})


def parse(*answers, repair=True):
    """Run the stage."""
    stage = ParseAnswers(AnswerReader(SCHEMA), RequestIdentity({"model": "m"}), repair=repair)
    return run_stage(lambda root: root | beam.Create(answers) | stage)


def test_a_valid_answer_is_a_result_with_its_rows():
    """Also between fences; the value is canonical JSON."""
    run = parse(make_answer("a", GOOD), make_answer("b", f"```json\n{GOOD}\n```"))
    assert {r.request_id: r.value_json for r in run["results"]} == {request_id("a"): GOOD, request_id("b"): GOOD}
    assert {r.riders[0].row.row_id for r in run["results"]} == {"row-a", "row-b"}
    assert all(r.kind is FailureKind.OK and not r.repaired for r in run["results"])
    assert run["repairs"] == []


def test_an_invalid_answer_becomes_one_repair_that_carries_the_rows():
    """The model is shown its own answer and the error; what the first call cost travels along."""
    run = parse(make_answer("a", '{"label":"meh"}', request=make_request("a", crowded=True)))
    assert run["results"] == []
    ((key, packed),) = run["repairs"]
    repair = unpack(packed)
    assert key == repair.request_id != repair.root_request_id == request_id("a")
    assert (repair.lane, repair.crowded, repair.riders) == (Lane.REPAIR, True, (asked_row("row-a"),))
    assert '{"label":"meh"}' in str(repair.prompt.turns)
    assert (repair.prior.call_id, repair.prior.attempts, repair.prior.cost_usd) == ("call-a", 1, Decimal("0.1"))
    assert run.counters["ParseAnswers/answers_invalid_output"] == 1


@pytest.mark.parametrize("repair", [True, False])
def test_a_repair_that_fails_again_is_a_failure(repair):
    """There is one repair at most, and none where the job wants none."""
    if repair:
        prior = PriorAttempt("call-0", 2, Usage(5, 1), Decimal("0.2"), "first error")
        request = make_request("a", lane=Lane.REPAIR, prior=prior, root_request_id=request_id("root"))
        (result,) = parse(make_answer("a", "no", request=request))["results"]
        assert (result.request_id, result.attempts, result.cost_usd) == (request_id("root"), 3, Decimal("0.3"))
        assert "after one repair; first: first error" in result.reason
        assert result.usage == Usage(15, 3)
    else:
        (result,) = parse(make_answer("a", "no"), repair=False)["results"]
    assert (result.kind, result.stage, result.value_json) == (FailureKind.INVALID_OUTPUT, Stage.PARSE, None)


def test_a_repaired_answer_says_so_and_adds_up():
    """Attempts, tokens and money are those of both calls; unknown if one is."""
    prior = PriorAttempt("call-0", 1, Usage(5, None), None, "first error")
    request = make_request("a", lane=Lane.REPAIR, prior=prior, root_request_id=request_id("root"))
    (result,) = parse(make_answer("a", GOOD, request=request))["results"]
    assert (result.repaired, result.attempts, result.usage, result.cost_usd) == (True, 2, Usage(15, None), None)


@pytest.mark.parametrize("kind", [FailureKind.TRUNCATED, FailureKind.REFUSAL, FailureKind.CONTENT_FILTERED])
def test_an_answer_that_did_not_end_normally_is_never_parsed(kind):
    """Even if its text were valid: it is a failure of the call, with its own kind."""
    run = parse(replace(make_answer("a", GOOD, kind), reason="so it was"))
    (result,) = run["results"]
    assert (result.kind, result.stage, result.value_json, result.reason) == (kind, Stage.CALL, None, "so it was")
    assert run["repairs"] == []
    assert run.counters[f"ParseAnswers/answers_{kind}"] == 1


def test_no_answers_give_nothing():
    """Both outputs are empty."""
    assert parse().outputs == {"results": [], "repairs": []}
