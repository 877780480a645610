"""What people are told, over HTTP, and what they are never told."""

from dataclasses import replace

import dagster as dg
import pytest

from serverless_assets.automation.alerts import (
    NOT_SET,
    AlertError,
    Alerts,
    Webhook,
    format_duration,
    shorten,
)
from serverless_assets.automation.sensors import NO_REASON, first_error
from tests.automation.hook import SECRET, Hook


def tell(alerts: Alerts) -> None:
    alerts.tell(
        "run_failed",
        "serverless_pipeline failed",
        "2 < 3 & GET https://ann:hunter2@x.org/raw.parquet?token=t0ps3cret answered 500.",
        "runs/1?a=b&c",
        "serverless_pipeline",
        "1",
    )


def test_slack_gets_its_markup_with_a_link_and_escaped_words(webhook: Hook):
    tell(replace(webhook.alerts, form="slack", environment="gcp"))
    assert webhook.told == [
        {
            "text": "*serverless_pipeline failed* (gcp)\n"
            "2 &lt; 3 &amp; GET https://x.org/raw.parquet answered 500.\n"
            "<http://ui.example/runs/1?a=b&amp;c|Open in Dagster>"
        }
    ]


def test_json_gets_every_field_and_a_text(webhook: Hook):
    tell(replace(webhook.alerts, environment="gcp"))
    assert webhook.told == [
        {
            "kind": "run_failed",
            "title": "serverless_pipeline failed",
            "sentence": "2 < 3 & GET https://x.org/raw.parquet answered 500.",
            "link": "http://ui.example/runs/1?a=b&c",
            "environment": "gcp",
            "at": "2026-11-25T12:00:00+00:00",
            "job": "serverless_pipeline",
            "run_id": "1",
            "text": "serverless_pipeline failed (gcp): 2 < 3 & GET https://x.org/raw.parquet answered 500. "
            "http://ui.example/runs/1?a=b&c",
        }
    ]


def test_a_long_error_is_cut_to_what_people_read_on_a_phone():
    assert shorten("x" * 2000) == "x" * 999 + "…"
    assert shorten("x" * 1000) == "x" * 1000


def test_a_webhook_that_stumbles_is_asked_again(webhook: Hook):
    webhook.answers = [503, 429]
    webhook.webhook.send({"text": "x"})
    assert (webhook.requests, len(webhook.told)) == (3, 1)


def test_a_webhook_on_this_machine_is_never_asked_through_a_proxy(webhook: Hook, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    webhook.webhook.send({"text": "x"})
    assert len(webhook.told) == 1


@pytest.mark.parametrize(("status", "requests"), [(503, 3), (404, 1), (302, 1)])
def test_a_webhook_that_does_not_take_it_is_told_without_its_address(webhook: Hook, status, requests):
    webhook.answers = [status] * 3
    with pytest.raises(AlertError) as failure:
        webhook.webhook.send({"text": "x"})
    assert f"127.0.0.1 (SERVERLESS_ALERT_URL) answered {status}" in str(failure.value)
    assert webhook.requests == requests and not webhook.told
    assert SECRET not in str(failure.value) + repr(webhook.webhook) + repr(webhook.alerts)


def test_a_webhook_that_cannot_be_reached_is_told_without_its_address():
    with pytest.raises(AlertError, match="failed: no connection") as failure:
        Webhook(f"http://127.0.0.1:1/{SECRET}", first_pause_seconds=0.001).send({"text": "x"})
    assert SECRET not in str(failure.value)


def test_without_a_webhook_it_is_said_that_nobody_was_told():
    with pytest.raises(AlertError, match=r"SERVERLESS_ALERT_URL is not set") as failure:
        Alerts(None, "slack", "local", "http://ui.example").tell("recovered", "x", "y")
    assert str(failure.value) == NOT_SET


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "1 min"),
        (420, "7 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86_400, "1 d"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert format_duration(seconds) == words


@dg.resource
def refuses():
    raise dg.Failure("The disk is full: make room.", allow_retries=False)


@dg.resource
def breaks():
    raise ValueError("no such thing")


@dg.asset
def of_a_resource(found: dg.ResourceParam[object]) -> None: ...


@dg.asset
def told() -> None:
    raise dg.Failure("The table is not there: load it.", allow_retries=False)


@dg.asset
def tried_again() -> None:
    raise dg.RetryRequested(0) from dg.Failure("The source does not answer.")


@dg.asset
def by_accident() -> None:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("asset", "resource", "words"),
    [
        (told, None, "The table is not there: load it."),
        (tried_again, None, "The source does not answer."),
        (by_accident, None, "no such thing"),
        (of_a_resource, refuses, "The disk is full: make room."),
        (of_a_resource, breaks, "no such thing"),
    ],
)
def test_the_first_error_of_a_run_is_its_sentence(instance, asset, resource, words):
    result = dg.materialize(
        [asset], resources={"found": resource} if resource else {}, instance=instance, raise_on_error=False
    )
    assert first_error(instance, result.run_id) == words


def test_a_run_whose_process_was_killed_has_the_sentence_of_who_found_it(instance):
    run = instance.create_run_for_job(
        dg.define_asset_job("one").resolve(asset_graph=dg.Definitions(assets=[told]).resolve_asset_graph())
    )
    instance.report_run_failed(run, "Its process was killed.")
    assert first_error(instance, run.run_id) == "Its process was killed."


def test_a_run_that_left_no_reason_is_said_to_have_left_none(instance):
    assert first_error(instance, "0" * 32) == NO_REASON
