"""Markup, SQL, control characters and paths where a name is expected: they stay text, or are refused."""

import json
import re
from pathlib import Path

import pytest
import yaml

from modal_forecast.__main__ import main as forecast_a_file
from serverless_assets.run_inputs import ChoiceError, CustomisedStyle, Reload, RunForecast, RunInputs
from serverless_assets.settings import Settings, SettingsError
from tests.faults.tally import Attempt, Tally
from tests.faults.world import World
from tests.ingestion.scripted import body, shop
from tests.raw_tables import RAW_STORES

KIND = "hostile strings"
MARKUP = [
    "<script>hostile()</script>",
    "</script><script>hostile()</script>",
    "<img src=x onerror=hostile()>",
    "\"><svg onload='hostile()'>",
    "javascript:hostile()",
    "{{ 7 * 7 }}{% raw %}${hostile()}",
]
TEXT = [
    "Robert'); drop table dwh.orders; --",
    'a "quoted" name',
    "{0.__class__} {name} %s %(name)s",
    "\x1b[31mred\x1b[0m\x07",
    "one line\n  99.9s  forged ...\r\nanother",
    "../../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "\u202egnp.exe \u200b\ufeff",
    "\U0001f950" * 50,
    "NULL",
    "",
]
LONG = "x" * 100_000
NAMES = [*MARKUP, *TEXT]
VARIABLES = [
    "SERVERLESS_ENV",
    "SERVERLESS_BRANCH",
    "DBT_SCHEMA",
    "SERVERLESS_FORECAST_TABLE",
    "SERVERLESS_DATASET_URL",
    "SERVERLESS_TIMEZONE",
    "SERVERLESS_ALERT_URL",
    "SERVERLESS_OWNER",
    "SERVERLESS_RUN_DEADLINE",
]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
FILE_NAMES = [*NAMES, LONG, "a\0b", "/etc/passwd", "..", ".", "con/../x", "a\\b.html", "~", "-rf", ".hidden"]


def check_text(text: str, fault: Attempt) -> None:
    """Report what a terminal or a log would take for more than text."""
    if found := CONTROL.search(text.replace("\r\n", "\n")):
        fault.other(f"a control character is printed: {text[max(0, found.start() - 60) : found.end()]!r}")
    if re.search(r"^ *99\.9s  forged", text, re.MULTILINE):
        fault.other("a line is forged")
    if "Traceback" in text:
        fault.silent(f"a traceback: {text[-600:]}")


def test_hostile_names_from_the_source_stay_text_everywhere(
    place: World, template: Path, attempt: Tally
) -> None:
    with place.restored(), attempt("names of customers, stores and products") as fault:
        place.put(template)
        rows = place.source.rows
        customers = {f"c{n}": NAMES[n % len(NAMES)] for n in range(12)}
        extra = {f"h{n}": name for n, name in enumerate(NAMES)}
        rows["raw_customers"] = list({**customers, **extra}.items())
        rows["raw_stores"] = [(row[0], MARKUP[n], *row[2:]) for n, row in enumerate(rows["raw_stores"])]
        rows["raw_products"] = [
            (*row[:1], TEXT[n], *row[2:4], TEXT[n + 3]) for n, row in enumerate(rows["raw_products"])
        ]
        code, text = place.run()
        check_text(text, fault)
        if code:
            fault.other(f"the run ends with {code}: {text[-600:]}")
        kept = dict(place.published("select id, name from dwh.raw_customers"))
        if kept != dict(rows["raw_customers"]):
            fault.loss(
                f"names changed: {[name for id, name in rows['raw_customers'] if kept.get(id) != name]}"
            )
        check_page((place.home / "artifacts" / "forecast.html").read_text(), fault)
        json.loads((place.home / "runs" / "latest.json").read_text())
    for name in (LONG, "a\0b"):
        with place.restored(), attempt(f"a store named {name[:3]!r}, {len(name):,} characters") as fault:
            place.put(template)
            place.source.rows["raw_stores"][0] = ("s0", name, *place.source.rows["raw_stores"][0][2:])
            code, text = place.run()
            check_text(text, fault)
            stores = [found for (found,) in place.published("select name from dwh.raw_stores")]
            if code and "raw_stores" not in text:
                fault.silent(f"nothing is said of the table: {text[-600:]}")
            if (name in stores) == bool(code):
                fault.loss(f"the run ends with {code} and {len(stores)} stores are published")


def check_page(page: str, fault: Attempt) -> None:
    """Report markup that came from a name."""
    for name in MARKUP[:4]:
        if name in page:
            fault.other(f"the report has {name} as markup")
    if "hostile" not in page:
        fault.other("the report does not show the stores' names")


@pytest.mark.parametrize(
    "field", ["forecast_table", "forecast_file", "html_report", "color_history", "color_prediction"]
)
def test_a_hostile_choice_is_refused_in_words_or_harmless(field: str, attempt: Tally) -> None:
    for value in FILE_NAMES:
        if not (value or field.startswith("color")):
            # The declared name.
            continue
        with attempt(f"{field}={value[:40]!r}") as fault:
            style = CustomisedStyle(**{field: value})
            try:
                RunInputs(forecast=RunForecast(style=style)).checked()
            except ChoiceError as refused:
                check_text(str(refused), fault)
                if len(str(refused)) > 2000:
                    fault.other(f"a refusal of {len(str(refused)):,} characters")
                continue
            if not re.fullmatch(r"#?[\w -]+(\.[\w-]+)*", value) or len(value) > 200:
                fault.other("it is taken")


def test_a_hostile_address_is_refused_without_repeating_it(attempt: Tally) -> None:
    for value in [*NAMES, LONG, "http://user:hunter2@[::1", "file:///etc/passwd", "http://a b/", "ftp://x/"]:
        if not value:
            continue
        with attempt(f"dataset_url={value[:40]!r}") as fault:
            try:
                RunInputs(ingestion=Reload(dataset_url=value)).checked()
            except ChoiceError as refused:
                check_text(str(refused), fault)
                if "hunter2" in str(refused):
                    fault.other("a password is told")
                continue
            fault.other("it is taken")


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_hostile_setting_is_refused_in_words(variable: str, attempt: Tally, tmp_path: Path) -> None:
    for value in [name for name in NAMES if name not in ("", "NULL")]:
        with attempt(f"{variable}={value[:40]!r}") as fault:
            try:
                settings = Settings.from_environ({variable: value, "SERVERLESS_HOME": str(tmp_path)})
            except SettingsError as refused:
                check_text(str(refused), fault)
                continue
            # Which environments there are is looked up later.
            if variable != "SERVERLESS_ENV" or settings.environment != value:
                fault.other("it is taken")


def test_a_hostile_run_config_writes_nothing_outside_the_home(
    place: World, template: Path, attempt: Tally, tmp_path: Path
) -> None:
    place.put(template)
    outside = place.folder / "outside.html"
    with attempt("html_report=../../../outside.html by the command") as fault:
        style = {"customised": {"html_report": "../../../outside.html"}}
        forecast = {"run": {"style": style}}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"resources": {"run_inputs": {"config": {"forecast": forecast}}}}))
        code, text = place.run("--config", str(config))
        check_text(text, fault)
        if not code or outside.exists():
            fault.other("a path outside the artifacts is taken")
        if "html_report" not in text:
            fault.silent(f"the refusal does not name it: {text[-600:]}")


def test_a_hostile_csv_is_refused_in_a_sentence(
    attempt: Tally, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history, out = tmp_path / "history.csv", tmp_path / "forecast.csv"
    for value in [*NAMES, LONG, "a\0b", "1e400", "nan", "0x10"]:
        with attempt(f"a CSV with {value[:40]!r}") as fault:
            history.write_text(f"ds,y\n2026-01-01,1\n2026-01-02,{value}\n")
            code = forecast_a_file([str(history), "--out", str(out)])
            error = capsys.readouterr().err
            check_text(error, fault)
            if code and error.count("\n") != 1:
                fault.silent(f"not one sentence: {error[-300:]!r}")
            if bool(code) == out.exists():
                fault.loss(
                    f"it ends with {code}, and the forecast is {'there' if out.exists() else 'not there'}"
                )
            out.unlink(missing_ok=True)


def test_a_hostile_server_forges_nothing_in_the_error(attempt: Tally) -> None:
    from serverless_assets.ingestion.http_client import SourceError
    from serverless_assets.ingestion.source import HttpSource

    for text in [name for name in NAMES if name and "\n" not in name and name.isascii()]:
        with attempt(f"content type {text[:40]!r}") as fault, shop(body(b"no", content_type=text)) as source:
            try:
                HttpSource(source.url, attempts=1, timeout_seconds=2).probe(RAW_STORES)
            except SourceError as refused:
                check_text(str(refused), fault)
