"""What a run prints at its end."""

from serverless_assets.cli.summary import stopped_text, summary_text


def document(**outcomes):
    statuses = [outcome[0] for outcome in outcomes.values()]
    return {
        "success": not {"failed", "skipped"} & set(statuses),
        "published": not {"failed", "skipped"} & set(statuses),
        "seconds": 1.0,
        "report": None,
        "warehouse": None,
        "totals": {status: statuses.count(status) for status in ("built", "reused", "failed", "skipped")},
        "assets": {
            name: {"status": status, "reason": reason, "rows": None, "path": None, "warnings": []}
            for name, (status, reason) in outcomes.items()
        },
    }


def test_a_reason_that_several_assets_share_is_printed_once():
    text = summary_text(
        document(
            customers=("skipped", "a model before it failed"),
            orders=("failed", "the test not_null_orders_id failed"),
            daily_revenue=("skipped", "a model before it failed"),
            raw_orders=("built", "new"),
            raw_items=("failed", "raw_items: the source serves 3 rows"),
        )
    )
    assert text.count("a model before it failed") == 1
    assert "  failed  raw_items: the source serves 3 rows" in text
    assert "  skipped customers, daily_revenue: a model before it failed" in text
    assert "  failed  orders: the test not_null_orders_id failed" in text
    assert text.index("  failed ") < text.index("  skipped ")


def test_a_long_list_of_assets_is_shortened():
    names = [f"model_{n}" for n in range(9)]
    text = summary_text(document(raw=("built", "new"), **dict.fromkeys(names, ("skipped", "one reason"))))
    assert "model_5 and 3 more: one reason" in text
    assert "model_6" not in text


def test_the_rows_of_raw_tables_are_listed_whatever_their_names():
    document_of_run = document(visits=("built", "new"), raw_material=("built", "new"))
    for outcome in document_of_run["assets"].values():
        outcome["rows"] = 1200
    assert "  Tables    visits 1,200\n" in summary_text(document_of_run, raw_tables={"visits"})


def test_checks_that_warned_are_named_with_their_asset_and_no_line_speaks_of_none():
    document_of_run = document(orders=("built", "new"), customers=("reused", "unchanged"))
    assert "Warning" not in summary_text(document_of_run)
    document_of_run["assets"]["customers"]["warnings"] = [f"check_{number}: late." for number in range(8)]
    text = summary_text(document_of_run)
    assert "  Warning   customers: check_0: late.\n  Warning   customers: check_1: late.\n" in text
    assert "and 2 more: `serverless ui` shows each" in text


def test_the_report_of_every_forecast_is_named():
    document_of_run = document(guests_report=("built", "new"), spend_report=("reused", "unchanged"))
    for name, outcome in document_of_run["assets"].items():
        outcome["path"] = f"/home/{name}.html"
    lines = summary_text(document_of_run).splitlines()
    assert [line for line in lines if "Report" in line] == [
        "  Report    /home/guests_report.html",
        "  Report    /home/spend_report.html",
    ]


def test_a_run_that_is_refused_as_a_whole_is_told_in_one_line():
    text = summary_text(document(a=("failed", "the disk is full"), b=("failed", "the disk is full")))
    assert "failed  all 2 assets: the disk is full" in text
    assert "no step was started" in text


def test_a_run_that_is_not_published_is_not_said_to_have_succeeded():
    text = summary_text({**document(raw_orders=("reused", "unchanged")), "published": False})
    assert "Succeeded" not in text
    assert text.startswith("Finished, but not published, in 1.0 s: 0 built, 1 reused")
    assert "Next: see above why it was not published. `serverless run --resume` does what is left" in text


def test_a_warehouse_that_is_not_there_yet_is_not_named():
    assert "Warehouse" not in summary_text(document(raw_orders=("failed", "no connection"), b=("built", "")))


def test_a_run_that_was_stopped_claims_no_more_than_is_so():
    def told(has_pending: bool, finished: list[str] | None, has_begun: bool = True, *options: str) -> str:
        command = " ".join(["serverless run", *options])
        return stopped_text("by Ctrl-C", 1.0, has_begun, has_pending, finished, command)

    for has_pending in (True, False):
        # Of what an earlier run left, nothing is claimed.
        assert told(has_pending, [], False, "--rebuild") == (
            "Stopped by Ctrl-C after 1.0 s, before the first step. Nothing was changed.\n"
            "`serverless run --rebuild` starts it again."
        )
    assert "What it finished is kept (orders): `serverless run --resume`" in told(True, ["orders"])
    assert "What it finished is kept: `serverless run --resume`" in told(True, None)
    assert "`serverless run --rebuild --resume` continues from" in told(True, None, True, "--rebuild")
    assert "Nothing was published." in told(True, []) and "Nothing of it was finished" in told(True, [])
    resumed = stopped_text("by Ctrl-C", 1.0, False, True, None, "serverless run transform", resumes=True)
    assert resumed.endswith("`serverless run transform --resume` starts it again.")
    # Stopped as it was being published: part of it may be read.
    assert "Nothing was published" not in told(False, None)
    assert told(False, None, True, "--reuse").endswith("`serverless run --reuse` does what is left to do.")
