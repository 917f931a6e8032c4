"""The file of a sweep: a job file with lists of values to try, and the jobs that it stands for."""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gmm_bayes._validation import nearest
from gmm_bayes.errors import ConfigError
from gmm_bayes.jobs.job_file.config import (
    SWEEP,
    build,
    describe,
    known_keys,
    override,
    parse,
    unknown,
)
from gmm_bayes.jobs.job_file.sections import JobConfig, SweepSection

__all__ = ["Member", "Sweep", "load_sweep", "short_names"]

_MOST_MEMBERS = 10_000
_LONGEST_VALUE, _LONGEST_NAME, _LONGEST_SHOWN = 40, 120, 60
# What cannot differ between members, and why.
_FIXED = {
    "output.directory": "each member has a directory of its own in that of the sweep",
    "runtime.progress": "one bar counts the members",
}


@dataclass(frozen=True)
class Member:
    """One job of a sweep.

    Attributes
    ----------
    name : str
        Of its directory.
    settings : dict
        The values that were swept, by section.key.
    config : JobConfig
    """

    name: str
    settings: dict[str, Any]
    config: JobConfig


@dataclass(frozen=True)
class Sweep:
    """What the file of a sweep stands for.

    Attributes
    ----------
    members : tuple of Member
        The product of the lists; the last one varies fastest.
    directory : str
        Where the results go unless the caller says otherwise.
    options : SweepSection
    """

    members: tuple[Member, ...]
    directory: str
    options: SweepSection


class _Options(BaseModel):
    """Gives complaints about the options the name of their section."""

    sweep: SweepSection


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read and check the file of a sweep, with every job in it. No data are read.

    Parameters
    ----------
    path : path
        A TOML file of at most 64 KiB: a job file with a section `[sweep]`.
    overrides : sequence of str
        Changes such as "sampler.num_samples=2000" or "sweep.model.n_components=[1, 2]".

    Returns
    -------
    Sweep

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or a key or a value is not known; in one or two
        lines.
    """
    source = Path(path)
    raw = parse(source)
    raw[SWEEP] = _flat(raw.get(SWEEP, {}))
    for change in overrides:
        override(raw, change)
    section = raw.pop(SWEEP)
    lists = {name: v for name, v in section.items() if name not in SweepSection.model_fields}
    for name, values in lists.items():
        _check_list(name, values)
    _check_changes(overrides, lists)
    try:
        options = {name: v for name, v in section.items() if name not in lists}
        checked = _Options.model_validate({SWEEP: options}).sweep
    except ValidationError as error:
        raise ConfigError(describe(error)) from None
    jobs = _product(raw, source, lists)
    if not all(config.data.in_memory for _, config in jobs):
        raise ConfigError(
            "data.in_memory: a sweep compares its members on all rows, which it holds in memory"
        )
    directory = jobs[0][1].output.directory
    members = tuple(
        Member(name, settings, _placed(config, f"{directory}/{name}"))
        for name, (settings, config) in zip(_names(jobs, lists), jobs, strict=True)
    )
    return Sweep(members, directory, checked)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the keys of some section.keys, with the section where two keys are equal."""
    count = Counter(name.partition(".")[2] for name in names)
    return {n: key if count[key := n.partition(".")[2]] == 1 else n for n in names}


def _flat(section: Any) -> dict[str, Any]:
    """The section with model.n_components = [...] and "model.n_components" = [...] alike."""
    if not isinstance(section, dict):
        raise ConfigError("sweep: must be a section, [sweep]")
    flat: dict[str, Any] = {}
    for name, value in section.items():
        nested = isinstance(value, dict) and "." not in name
        pairs = {f"{name}.{key}": v for key, v in value.items()} if nested else {name: value}
        for key, v in pairs.items():
            if key in flat:
                raise ConfigError(f"sweep.{_cut(key)}: stands there twice")
            flat[key] = v
    return flat


def _check_list(name: str, values: Any) -> None:
    """Refuse what is not a list of values for a setting of a job."""
    section, dot, key = name.partition(".")
    where = f"sweep.{_cut(name)}"
    if not dot:
        homes = [f"{s}.{name}" for s in JobConfig.model_fields if name in known_keys(s)]
        hint = (
            f"must be section.key; did you mean {' or '.join(map(repr, homes))}?"
            if homes
            else f"unknown key; {nearest(_cut(name), SweepSection.model_fields)}"
        )
        raise ConfigError(f"{where}: {hint}")
    if section not in JobConfig.model_fields or key not in known_keys(section):
        known = section in JobConfig.model_fields
        raise ConfigError(f"{where}: {unknown((section, key) if known else (section,))}")
    if name in _FIXED:
        raise ConfigError(f"{where}: cannot be swept: {_FIXED[name]}")
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"{where}: must be a list of values to try, such as [1, 2, 3], "
            f"got {_cut(_text(values)) if values != [] else 'an empty list'}"
        )
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ConfigError(f"{where}: must be distinct, got {_cut(_text(twice[0]))} more than once")


def _check_changes(overrides: Sequence[str], lists: dict[str, list[Any]]) -> None:
    """Refuse a change that the lists would undo, and lists too long or none at all."""
    for change in overrides:
        name = change.partition("=")[0].strip()
        if name in lists:
            raise ConfigError(f"--set {name}: is swept; use --set '{SWEEP}.{name}=[...]'")
    if not lists:
        raise ConfigError(
            "sweep: needs lists of values to try, such as model.n_components = [1, 2, 3]"
        )
    size = math.prod(len(values) for values in lists.values())
    if size > _MOST_MEMBERS:
        raise ConfigError(f"sweep: its lists make {size:,} jobs; at most {_MOST_MEMBERS:,} are run")


def _product(
    raw: dict[str, Any], source: Path, lists: dict[str, list[Any]]
) -> list[tuple[dict[str, Any], JobConfig]]:
    """Settings and job of every member."""
    jobs = []
    for values in itertools.product(*lists.values()):
        settings, job = dict(zip(lists, values, strict=True)), deepcopy(raw)
        for name, value in settings.items():
            section, _, key = name.partition(".")
            table = job.setdefault(section, {})
            # A section that is not a table is complained about with the rest of the file.
            if isinstance(table, dict):
                table[key] = value
        jobs.append((settings, build(job, source)))
    return jobs


def _placed(config: JobConfig, directory: str) -> JobConfig:
    output = config.output.model_copy(update={"directory": directory})
    runtime = config.runtime.model_copy(update={"progress": False})
    return config.model_copy(update={"output": output, "runtime": runtime})


def _names(
    jobs: Sequence[tuple[dict[str, Any], JobConfig]], lists: dict[str, list[Any]]
) -> list[str]:
    """Readable names of directories; where two are the same or long, with a piece of a hash."""
    short = short_names(list(lists))
    names = ["-".join(f"{short[n]}={_word(v)}" for n, v in s.items()) for s, _ in jobs]
    # Some file systems do not tell capitals apart.
    count = Counter(name.lower() for name in names)
    for i, name in enumerate(names):
        if count[name.lower()] > 1 or len(name) > _LONGEST_NAME:
            content = json.dumps(jobs[i][0], sort_keys=True, default=str)
            digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            names[i] = f"{name[:_LONGEST_NAME]}-{digest}"
    return names


def _word(value: Any) -> str:
    """A value as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+_]+", "-", _text(value)).strip("-.")[:_LONGEST_VALUE]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=str)
    except ValueError:
        return "a number of thousands of digits"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
