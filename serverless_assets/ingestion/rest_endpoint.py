"""What an entry of the catalogue says under `rest`: where the rows are in an API, and how to ask for them.

Paginators and authentication have the names and options of dlt's REST client, which asks.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from serverless_assets.addresses import is_http_address
from serverless_assets.hashing import digest


def _check_address(value: str) -> str:
    if not is_http_address(value) or "@" in urlsplit(value).netloc:
        raise ValueError("expected an http or https address without user and password")
    return value


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("expected text, a number, true or false")
    return value


RestFormat = Literal["json", "csv"]
Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, Field(min_length=1)]
Scalar = Annotated[Any, AfterValidator(_check_scalar)]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
# Keys that lead through JSON objects, such as data.items.
JsonPath = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SecretError(ValueError):
    """A secret that is not set, or empty; the message names its variable or file, and not its value."""


class Secret(_Declared):
    """Where a secret is kept: in an environment variable, or in a file. It is read when it is sent."""

    env: Name | None = None
    file: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _check(cls, value: Any) -> Any:
        if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"env", "file"}:
            raise ValueError("expected {env: VARIABLE} or {file: PATH}, and never the secret itself")
        return value

    def __str__(self) -> str:
        return str(self.env or self.file)

    def read(self) -> str:
        """Return the secret.

        Raises:
            SecretError: there is none.
        """
        if self.env:
            value = os.environ.get(self.env, "")
        else:
            try:
                value = Path(str(self.file)).expanduser().read_text()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise SecretError(f"the file {self.file} cannot be read ({reason})") from None
        if not value.strip():
            raise SecretError(
                f"{self} is {'not set: export it, then run this again' if self.env else 'empty'}"
            )
        if not value.strip().isprintable():
            raise SecretError(f"{self} has more than one line, or characters that a header cannot carry")
        return value.strip()


class Bearer(_Declared):
    type: Literal["bearer"]
    token: Secret


class ApiKey(_Declared):
    """A key in a header of its own."""

    type: Literal["api_key"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    api_key: Secret


class HttpBasic(_Declared):
    type: Literal["http_basic"]
    username: Name
    password: Secret


class OAuth2(_Declared):
    """OAuth 2 with client credentials: the token is renewed when it expires."""

    type: Literal["oauth2_client_credentials"]
    access_token_url: Address
    client_id: Name
    client_secret: Secret
    access_token_request_data: Mapping[str, str] = {}


class PageNumber(_Declared):
    type: Literal["page_number"]
    base_page: int = 1
    page_param: Name = "page"
    total_path: JsonPath | None = None
    has_more_path: JsonPath | None = None


class Offset(_Declared):
    type: Literal["offset"]
    limit: Annotated[int, Field(gt=0)]
    offset_param: Name = "offset"
    limit_param: Name = "limit"
    total_path: JsonPath | None = None
    has_more_path: JsonPath | None = None


class Cursor(_Declared):
    type: Literal["cursor"]
    cursor_path: JsonPath
    cursor_param: Name = "cursor"
    has_more_path: JsonPath | None = None


class JsonLink(_Declared):
    type: Literal["json_link"]
    next_url_path: JsonPath


class HeaderLink(_Declared):
    type: Literal["header_link"]
    links_next_key: Name = "next"


Auth = Annotated[Bearer | ApiKey | HttpBasic | OAuth2, Field(discriminator="type")]
Paginator = Annotated[PageNumber | Offset | Cursor | JsonLink | HeaderLink, Field(discriminator="type")]


class RestEndpoint(_Declared):
    """Where the rows of a table are in a REST API, and how to ask for them.

    Without a `url`, it is the table's path below the source's address. `fields` leads from a column to its
    value where that has another name, or is in an object of the row (customer.id). In an API that
    `omits_empty` values, a page may lack a column. `updated_since_param` is the parameter by which only the
    changes of a table with `updated_at` are asked for.
    """

    url: Address | None = None
    format: RestFormat = "json"
    data_selector: JsonPath | None = None
    fields: Mapping[str, Name] = {}
    omits_empty: bool = False
    params: Mapping[str, Scalar] = {}
    headers: Mapping[str, Line] = {}
    updated_since_param: Name | None = None
    paginator: Paginator | None = None
    auth: Auth | None = None
    requests_per_minute: PositiveFloat | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Name = "utf-8"

    @model_validator(mode="after")
    def _refuse_paths_into_csv(self) -> "RestEndpoint":
        paths = {name for name, value in self.paginator or () if name.endswith("_path") and value}
        if self.format == "csv" and (paths or self.data_selector):
            option = min(paths) if paths else "data_selector"
            raise ValueError(f"{option} leads through JSON, and the format is csv")
        return self

    def address(self, base_url: str, location: str) -> str:
        """Return the address of the rows, given that of the source and the table's path below it."""
        if self.url:
            return self.url
        parts = urlsplit(base_url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{location}"))

    def key(self, source: str) -> str:
        """Return a hash that identifies the request for all rows, given one of where they come from."""
        return digest(f"{source} {self.model_dump_json(exclude={'url', 'auth', 'requests_per_minute'})}")


def read_endpoint(value: Any) -> RestEndpoint:
    """Return what an entry says under `rest`.

    Raises:
        ValueError: the message says what is wrong, where, and what is allowed.
    """
    try:
        return RestEndpoint.model_validate(value)
    except ValidationError as error:
        problems = list(_problems(error))
    # Not from within: that error holds the frames that it was raised in, and is not freed with a cycle.
    raise ValueError("; ".join(problems))


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        # Never the value: it may be a secret in the wrong place.
        place, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        context = problem.get("ctx", {})
        if problem["type"].startswith("union_tag"):
            place += ".type"
            message = f"expected one of {context.get('expected_tags', 'those in docs/rest-api.md')}"
        elif problem["type"] == "extra_forbidden":
            message = "there is no such option"
        yield f"{place or 'it'}: {message[0].lower()}{message[1:]}"
