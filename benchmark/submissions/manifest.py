"""Read a bundle's manifest and entry: who sent it and what it contains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from lowbit.benchmark.recipes.yaml_files import load_yaml
from lowbit.benchmark.submissions.untrusted_text import hidden_text, name_problem, shown
from lowbit.common.input_files.json_values import parse_json
from lowbit.common.input_files.strict_model import StrictModel

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MOST_BYTES = 16 << 20
_MOST_VALUES = 400_000  # 50,000 files have 300,000
_SHOWN = 10  # jobs listed in a refusal
_NAME = r"^[a-z0-9]+([.-][a-z0-9]+)*$"
_URL = r"^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9_.~%/?#=+,:@-]*)?$"


class BundleError(ValueError):
    """A bundle, or an entry for one, was refused; nothing was written."""


class RefusedError(BundleError):
    """Some jobs of a bundle were refused; `wrong` says why, one line per job."""

    def __init__(self, message: str, wrong: Sequence[str]) -> None:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        self.wrong = [*wrong[:_SHOWN], *more]
        super().__init__("\n  ".join([message, *self.wrong]))


def _plain_name(text: str) -> str:
    if problem := name_problem(text):
        raise ValueError(f"it {problem}")
    return text


def _plain_text(text: str) -> str:
    if hidden_text(text) is not None:
        raise ValueError("it has characters that are not seen")
    return text


Name = Annotated[str, AfterValidator(_plain_name)]
Url = Annotated[str, Field(pattern=_URL, max_length=300)]


class Entry(StrictModel):
    """A submission's name, its submitter, and links to more about it."""

    name: str = Field(
        pattern=_NAME,
        max_length=60,
        description="Its folder on the board's side: lower-case letters, digits, `-` and `.`.",
    )
    submitter: Name = Field(description="Who sends it: a person, a group.")
    contact: Name | None = Field(None, description="An e-mail address, for questions.")
    paper: Url | None = Field(None, description="Where the paper is.")
    code: Url | None = Field(None, description="Where the code is.")
    weights: dict[Name, Url] = Field({}, description="Where each checkpoint is, by its name.")
    licence: Name | None = Field(None, description="Of the checkpoints, as an SPDX identifier.")
    bibtex: Annotated[str, AfterValidator(_plain_text)] | None = Field(
        None, max_length=4000, description="How to cite it."
    )


class Content(StrictModel):
    """One file of a bundle."""

    bytes: int = Field(ge=0, description="Its size.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Its content.")


class Manifest(StrictModel):
    """The first file of a bundle: who sends it, and a list of its other files."""

    schema_version: Literal[1] = Field(description="Version of this layout.")
    entry: Entry = Field(description="Who sends it.")
    files: dict[str, Content] = Field(description="Every other file, by its path in the bundle.")


def read_entry(path: Path) -> Entry:
    """Read the YAML file that describes the sender of a bundle.

    Raises:
        BundleError: a key is unknown, missing or has a value that is not allowed.
        RecipeError: there is no such file, or it is not YAML.
    """
    try:
        return Entry.model_validate(load_yaml(path))
    except ValidationError as error:
        known = ", ".join(Entry.model_fields)
        raise BundleError(
            f"{path} does not say who sends the bundle: {problems(error)}; nothing was written. "
            f"Its keys are {known}; name and submitter are needed."
        ) from error


def read_manifest(data: bytes) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        BundleError: it is not one, or of a layout that is unknown here.
    """
    try:
        found = parse_json(data, MANIFEST, limit=MOST_BYTES, values=_MOST_VALUES)
        version = found.get("schema_version") if isinstance(found, dict) else None
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{MANIFEST} has schema_version {shown(version)}, and this version reads "
                f"{SCHEMA_VERSION}"
            )
        return Manifest.model_validate(found)
    except ValidationError as error:
        raise BundleError(f"{MANIFEST}: {problems(error)}") from error
    except ValueError as error:
        raise BundleError(str(error)) from error


def problems(error: ValidationError) -> str:
    """Name the keys a model refuses and why, without the foreign values."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{shown('.'.join(map(str, item['loc'])))}: {item['msg']}" for item in found[:5]]
    more = f", and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(lines) + more
