"""The job file: read, checked, complained about by the name of the key, and written back."""

import re
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from gmm_bayes._validation import nearest
from gmm_bayes.errors import ConfigError
from gmm_bayes.jobs.job_file.sections import JobConfig, SamplerSection, sampler_keys

__all__ = [
    "SWEEP",
    "JobConfig",
    "build",
    "describe",
    "known_keys",
    "load_config",
    "override",
    "parse",
    "to_toml",
    "unknown",
]

# The section that turns a job file into that of a sweep.
SWEEP = "sweep"

# A job file is a page of text; anything larger is a mistake, or an attack. The time that tomllib
# needs for a key a.a.a... grows with the square of its length: ten seconds for 64 KiB.
_SIZE_LIMIT = 2**16
_MOST_DOTS = 50
_LONGEST_SHOWN = 60
_DEEPEST = 8
_DOT = re.compile(r"\.[ \t]*[^\s.]")
_DEEP = "the lists or tables are nested too deeply"

# By pydantic's name of the fault.
_MESSAGES = {
    "missing": "is missing",
    "int_type": "must be an integer, got {got}",
    "float_type": "must be a number, got {got}",
    "string_type": "must be text, got {got}",
    "bool_type": "must be true or false, got {got}",
    "list_type": "must be a list, got {got}",
    "model_type": "must be a section, [{key}], got {got}",
    "too_short": "must not be an empty list",
    "finite_number": "must be finite, got {got}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "greater_than": "must be above {gt}, got {got}",
    "less_than": "must be below {lt}, got {got}",
}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read and check a job file. Nothing else is read and nothing is written.

    Parameters
    ----------
    path : path
        A TOML file of at most 64 KiB.
    overrides : sequence of str
        Changes such as "sampler.num_samples=2000". A value that is not TOML is taken as text.

    Returns
    -------
    JobConfig
        With `data.path` made absolute and `output.directory` filled in.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or a key or a value is not known; in one or two
        lines.
    """
    source = Path(path)
    raw = parse(source)
    for change in overrides:
        override(raw, change)
    return build(raw, source)


def build(raw: dict[str, Any], source: Path) -> JobConfig:
    """Check the tables of a job file; see `load_config`.

    Parameters
    ----------
    raw : dict
        By section. `output.directory` is filled in.
    source : Path
        Where it came from: `data.path` is relative to it.

    Returns
    -------
    JobConfig

    Raises
    ------
    ConfigError
    """
    output = raw.setdefault("output", {})
    if isinstance(output, dict):
        output.setdefault("directory", f"runs/{source.stem}")
    try:
        config = JobConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(describe(error)) from None
    if config.data.path is None:
        return config
    absolute = str((source.parent / config.data.path).absolute())
    data = config.data.model_copy(update={"path": absolute})
    return config.model_copy(update={"data": data})


def to_toml(config: JobConfig, remark: str = "") -> str:
    """Write a job file, with every setting, that `load_config` reads as the same job.

    Parameters
    ----------
    config : JobConfig
    remark : str
        One line more in the comment above.

    Returns
    -------
    str
    """
    # Without indents, a file that is read is hardly longer when it is written again.
    settings = tomli_w.dumps(config.model_dump(exclude_none=True), indent=0)
    more = f"# {remark}\n" if remark else ""
    return f"# Every setting of a run; gmm-bayes run takes this file again.\n{more}\n{settings}"


def _read(path: Path) -> str:
    """The text of a job file, after checking that it is a file of a sensible size."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path} is a directory; name a job file in it")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(_SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _SIZE_LIMIT:
        raise ConfigError(f"{path} is larger than 64 KiB: this is not a job file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from None


def parse(path: Path) -> dict[str, Any]:
    """Read a file of TOML, of a sensible size and depth.

    Raises
    ------
    ConfigError
    """
    text = _read(path)
    if any(len(_DOT.findall(piece)) > _MOST_DOTS for piece in re.split(r"[\n=,{}]", text)):
        raise ConfigError(f"{path}: {_DEEP}")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except ValueError:
        raise ConfigError(f"{path} is not valid TOML: a number has thousands of digits") from None
    except RecursionError:
        raise ConfigError(f"{path}: {_DEEP}") from None
    if _too_deep(raw):
        raise ConfigError(f"{path}: {_DEEP}")
    return raw


def _too_deep(value: Any) -> bool:
    """Whether containers are nested beyond what a job can mean. The stack of C is not unlimited."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def override(raw: dict[str, Any], change: str) -> None:
    """Put section.key=value into the parsed file."""
    name, equals, text = change.partition("=")
    section, dot, key = name.strip().partition(".")
    complete = equals and section and (key if dot else section not in JobConfig.model_fields)
    if not complete:
        raise ConfigError(
            f"--set must be section.key=value, such as sampler.num_samples=2000, got {change!r}"
        )
    if not dot:
        raise ConfigError(f"--set {section}: {unknown((section,))}")
    table = raw.setdefault(section, {})
    # A section that is not a table is complained about with the rest of the file.
    if isinstance(table, dict):
        table[key] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break in the text could have opened a key of its own.
    return parsed["value"] if len(parsed) == 1 and not _too_deep(parsed) else text


def describe(error: ValidationError) -> str:
    """The first two faults, one to a line."""
    faults = [_fault(dict(e)) for e in error.errors(include_url=False)]
    lines = faults[:2]
    if len(faults) > 2:
        lines[-1] += f" (and {len(faults) - 2} more)"
    return "\n".join(lines)


def _fault(error: Mapping[str, Any]) -> str:
    """One fault as `section.key: expected, got`."""
    loc, kind, context = error["loc"], error["type"], error.get("ctx", {})
    name = str(loc[0])[:_LONGEST_SHOWN]
    for part in loc[1:]:
        name += f"[{part}]" if isinstance(part, int) else f".{str(part)[:_LONGEST_SHOWN]}"
    got = _shown(error["input"])
    if kind == "extra_forbidden":
        message = unknown(loc)
    elif kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        message = f"must be one of {', '.join(known)}, got {got}"
        if isinstance(error["input"], str):
            message += f"; {nearest(error['input'][:_LONGEST_SHOWN], known)}"
    elif kind == "value_error":
        message = str(context["error"])
        # The package's own checks name their argument, which is the key.
        first, _, rest = message.partition(" ")
        if len(loc) == 1 and " must " in message and first in known_keys(str(loc[0])):
            name, message = f"{name}.{first}", rest
    else:
        template = _MESSAGES.get(kind)
        message = template.format(got=got, key=name, **context) if template else error["msg"]
    return f"{name}: {message}"


def unknown(loc: Sequence[Any]) -> str:
    """What to say of a section or a key that does not exist."""
    if loc[0] == SWEEP:
        return "this file describes many jobs; give it to gmm-bayes sweep"
    word = str(loc[-1])[:_LONGEST_SHOWN]
    if len(loc) > 1:
        return f"unknown key; {nearest(word, known_keys(str(loc[0])))}"
    homes = [f"{s}.{word}" for s in JobConfig.model_fields if word in known_keys(s)]
    if homes:
        return f"must be in a section; did you mean {' or '.join(map(repr, homes))}?"
    return f"unknown section; {nearest(word, JobConfig.model_fields)}"


def known_keys(section: str) -> Iterable[str]:
    """Keys of a section of a job file, none of a section that does not exist."""
    field = JobConfig.model_fields.get(section)
    if field is None:
        return ()
    sections: type[BaseModel] = field.annotation  # type: ignore[assignment]
    return sampler_keys() if sections is SamplerSection else sections.model_fields


def _shown(value: Any) -> str:
    """A value as it stands in the file, short; a container by its kind only."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
