"""What a person may choose in the launchpad, and what it refuses before anything runs."""

import pytest

from tests.ui.client import config

IS_VALID = """
query ($config: RunConfigData!) {
  isPipelineConfigValid(
    pipeline: {pipelineName: "serverless_pipeline", repositoryName: "__repository__",
               repositoryLocationName: "serverless_assets.definitions"}
    mode: "default", runConfigData: $config
  ) { __typename ... on RunConfigValidationInvalid { errors { message } } }
}
"""
CPUS = ["0.25", "0.5", "0.75", "1.0", "1.5", "2.0", "4.0", "8.0", "16.0", "32.0"]


def is_launchable(ui, run_inputs):
    found = ui.ask(IS_VALID, config=config(run_inputs))["isPipelineConfigValid"]
    errors = " ".join(error["message"] for error in found.get("errors", []))
    return found["__typename"] == "PipelineConfigValidationValid", errors


@pytest.mark.parametrize(
    "run_inputs",
    [
        {},
        {"ingestion": {"reuse": {}}, "forecast": {"skip": {}}},
        {"forecast": {"run": {"cpu": "2.0", "memory": "512", "style": {"default": {}}}}},
        {"forecast": {"run": {"style": {"customised": {"color_history": "teal", "nr_days_fcst": 30}}}}},
        {"ingestion": {"reload": {"dataset_url": "https://example.com/data"}}},
    ],
)
def test_the_launchpad_takes_choices_that_make_sense(served, run_inputs):
    assert is_launchable(served, run_inputs) == (True, "")


@pytest.mark.parametrize(
    ("run_inputs", "named"),
    [
        ({"forecast": {"run": {"cpu": "3.0"}}}, "cpu"),
        ({"forecast": {"run": {"memory": "300"}}}, "memory"),
        ({"forecast": {"run": {"cpu": 0.25}}}, "cpu for enum type Literal['0.25'"),
        ({"forecast": {"run": {"style": {"default": {"color_history": "red"}}}}}, "color_history"),
        ({"forecast": {"skip": {"cpu": "1.0"}}}, "cpu"),
        ({"forecast": {"run": {}, "skip": {}}}, "forecast"),
        ({"ingestion": {"reuse": {"dataset_url": "http://x"}}}, "dataset_url"),
        ({"forecast": {"run": {"style": {"customised": {"nr_days_fcst": "many"}}}}}, "nr_days_fcst"),
    ],
)
def test_the_launchpad_refuses_choices_that_do_not(served, run_inputs, named):
    launchable, errors = is_launchable(served, run_inputs)
    assert not launchable
    assert named in errors


# ---- in the browser


@pytest.fixture
def form(served, page):
    page.goto(f"{served.url}/locations/serverless_assets.definitions/jobs/serverless_pipeline/playground")
    page.get_by_text("No errors").wait_for()
    return page.locator(".CodeMirror").first


def clear_the_value_of(page, form, field):
    form.locator(".CodeMirror-line", has_text=f"{field}:").click()
    page.keyboard.press("End")
    page.keyboard.press("Shift+Home")
    page.keyboard.type(f"{field}: ")


def test_the_launchpad_opens_on_a_form_that_is_filled_in(form, page, picture):
    said = form.inner_text()
    for filled_in in (
        "cpu: '0.25'", "memory: '256'", "default: {}", "reload:", "dataset_url: ''", "rebuild: changed",
    ):  # fmt: skip
        assert filled_in in said
    # Nothing to fill in before it can be launched, such as a month.
    assert page.get_by_placeholder("Partition").count() == 0
    page.get_by_role("button", name="Launch Run", disabled=False).wait_for()
    # What there is to choose, beside the form.
    clear_the_value_of(page, form, "memory")
    page.keyboard.type("'512'")
    page.get_by_text("No errors").wait_for()
    page.get_by_text("Your own names, colours and horizon.").wait_for()
    picture("launchpad")


def test_the_form_of_a_full_rebuild_says_so(served, page):
    page.goto(f"{served.url}/locations/serverless_assets.definitions/jobs/full_rebuild/playground")
    page.get_by_text("No errors").wait_for()
    page.locator(".CodeMirror-line", has_text="rebuild: all").wait_for()
    page.get_by_role("button", name="Launch Run", disabled=False).wait_for()


def test_the_launchpad_offers_the_choices_that_there_are(form, page):
    clear_the_value_of(page, form, "cpu")
    page.keyboard.press("Control+Space")
    offered = page.locator(".CodeMirror-hints")
    offered.get_by_text("0.75", exact=True).wait_for()
    assert offered.inner_text().split() == CPUS
    offered.get_by_text("2.0", exact=True).click()
    form.get_by_text("2.0").wait_for()
    page.get_by_text("No errors").wait_for()


def test_the_launchpad_says_what_is_wrong_with_a_value_and_does_not_launch_it(form, page):
    clear_the_value_of(page, form, "cpu")
    page.keyboard.type("'3.0'")
    refusal = page.get_by_text("got 3.0").first
    refusal.wait_for()
    assert "forecast:run:cpu not in enum" in refusal.inner_text()
    assert "'32.0'" in refusal.inner_text()
    page.get_by_role("button", name="Launch Run", disabled=True).wait_for()
