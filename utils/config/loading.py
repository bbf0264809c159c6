"""Reads both TOML files and reports every problem in them at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from utils.config.corpus import CorpusConfig, format_problems
from utils.config.schema import (
    ClassGroups,
    ExperimentConfig,
    ExperimentEntry,
    TrainingConfig,
    loss_problems,
)
from utils.config.types import NAME_PATTERN, PATTERN_RULES, REFUSED_PATH, Section
from utils.config.wording import describe_allowed, describe_value
from utils.errors import ConfigurationError, Problem
from utils.io.files import read_toml
from utils.io.user_code import UserCodeError, import_user_code, look_beside
from utils.registry import is_user_code, user_code_of
from utils.text import did_you_mean

NAME = re.compile(NAME_PATTERN)
Table = dict[str, Any]
Locate = Callable[[str], str]
"""Maps a key to its path in the TOML file."""
SectionType = TypeVar("SectionType", bound=Section)


@dataclass(frozen=True)
class Plan:
    """All the work of a command: its keys are validated, but the files on disk have not been looked at yet."""

    corpora: Mapping[str, CorpusConfig]
    experiments: tuple[ExperimentConfig, ...]
    corpora_file: Path
    experiments_file: Path


def load_plan(corpora_file: Path, experiments_file: Path, only: list[str] | None = None) -> Plan:
    """Read and validate `config.toml` and `experiments_config.toml`.

    Args:
        corpora_file: The table of corpora.
        experiments_file: The experiment list.
        only: Names of the experiments to keep; all where empty.

    Raises:
        ConfigurationError: With all problems of both files.
    """
    problems: list[Problem] = []
    corpus_tables = _read_toml(corpora_file, "--config FILE", problems)
    experiment_tables = _read_toml(experiments_file, "--experiments FILE", problems)
    corpora = _parse_corpora(corpora_file, corpus_tables, problems) if corpus_tables is not None else {}
    experiments: list[ExperimentConfig] = []
    if experiment_tables is not None:
        known = list(corpus_tables) if corpus_tables is not None else None
        experiments = _ExperimentList(experiments_file, experiment_tables, known, problems).parse()
        problems += _unknown_names(experiments_file, experiment_tables, only or [])
    if problems:
        raise ConfigurationError(problems)
    chosen = tuple(e for e in experiments if not only or e.name in only)
    plan = Plan(corpora, chosen, corpora_file, experiments_file)
    look_beside(corpora_file, experiments_file)
    problems = list(_user_code_problems(plan))
    if problems:
        raise ConfigurationError(problems)
    return plan


def _user_code_problems(plan: Plan) -> Iterator[Problem]:
    """Import the user's own code that a plan names, and yield its problems."""
    needed = dict.fromkeys(name for e in plan.experiments for name in (e.corpus, *e.test_corpora))
    for name in needed:
        yield from _format_problems(plan.corpora_file, name, plan.corpora[name])
    for experiment in plan.experiments:
        problems = list(_import_problems(plan.experiments_file, experiment.name, experiment))
        if not problems and is_user_code(experiment.loss_type):
            place = f"{experiment.name}: "
            problems = [Problem(plan.experiments_file, place + key, text) for key, text in loss_problems(experiment)]
        yield from problems


def _format_problems(file: Path, name: str, corpus: CorpusConfig) -> Iterator[Problem]:
    problems = list(_import_problems(file, name, corpus))
    if not problems and is_user_code(corpus.FORMAT):
        problems = [Problem(file, f"{name}.{key}", text) for key, text in format_problems(corpus)]
    yield from problems


def _import_problems(file: Path, name: str, section: Section) -> Iterator[Problem]:
    for key, place, contract in user_code_of(section):
        try:
            import_user_code(place, contract)
        except UserCodeError as error:
            yield Problem(file, f"{name}: {key}", str(error))


def load_corpora(file: Path) -> dict[str, CorpusConfig]:
    """Read and validate `config.toml` alone.

    Raises:
        ConfigurationError: With all problems of the file.
    """
    problems: list[Problem] = []
    tables = _read_toml(file, "--config FILE", problems)
    corpora = _parse_corpora(file, tables, problems) if tables is not None else {}
    if not problems:
        look_beside(file)
        problems = [problem for name, corpus in corpora.items() for problem in _format_problems(file, name, corpus)]
    if problems:
        raise ConfigurationError(problems)
    return corpora


def _read_toml(file: Path, option: str, problems: list[Problem]) -> Table | None:
    try:
        return read_toml(file)
    except FileNotFoundError:
        problems.append(Problem(file, "", f"no such file; name another with {option}"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(file, "", f"cannot be read as text ({error}); name another with {option}"))
    except ValueError as error:
        problems.append(Problem(file, "", f"is not valid TOML: {error}"))
    except RecursionError:
        problems.append(Problem(file, "", "is not valid TOML for this program: it is nested too deeply"))
    return None


def _parse_corpora(file: Path, tables: Table, problems: list[Problem]) -> dict[str, CorpusConfig]:
    if not tables:
        problems.append(Problem(file, "", "contains no corpus; add a table such as [MSP-PODCAST] with its paths"))
    corpora = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            problems.append(Problem(file, name, f"found {describe_value(table)}; allowed: a table, [{name}]"))
            continue
        if not NAME.fullmatch(name):
            problems.append(Problem(file, f'"{name}"', f"not a corpus name; allowed: {PATTERN_RULES[NAME_PATTERN]}"))
            continue
        corpus = _validate(CorpusConfig, table, partial("{}.{}".format, name), file, problems)
        if corpus is not None:
            corpora[name] = _anchored(corpus, file.parent)
    return corpora


def _anchored(corpus: CorpusConfig, folder: Path) -> CorpusConfig:
    """Let relative paths start at the folder of the file that names them."""
    keys = ("PATH_TO_AUDIO", "PATH_TO_LABEL", "PATH_TO_DATASET")
    paths = {key: folder / getattr(corpus, key) for key in keys if getattr(corpus, key) is not None}
    return corpus.model_copy(update=paths)


def _unknown_names(file: Path, tables: Table, only: list[str]) -> list[Problem]:
    entries = tables.get("experiments")
    listed = [e.get("name") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    names = [name for name in listed if isinstance(name, str)]
    return [
        Problem(file, "experiments", f'--only names "{name}", which is not in the list; {did_you_mean(name, names)}')
        for name in only
        if name not in names
    ]


def _refused_by_hub(repository: str) -> str | None:
    """Return why the hub client refuses a repository name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        return str(error)
    return None


class _ExperimentList:
    """Resolves `[[experiments]]` against the base configs of one file."""

    def __init__(self, file: Path, tables: Table, corpora: list[str] | None, problems: list[Problem]) -> None:
        self.file = file
        self.tables = tables
        self.corpora = corpora
        self.problems = problems

    def parse(self) -> list[ExperimentConfig]:
        """Return the valid experiments; the problems of the others are added to the list."""
        entries = self.tables.get("experiments")
        for name, table in self.tables.items():
            if name != "experiments":
                self._check_base(name, table)
        if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
            self._report("experiments", "no experiment is listed; add a table [[experiments]] with a name")
            return []
        self._check_duplicates(entries)
        parsed = [self._parse_entry(index, entry) for index, entry in enumerate(entries)]
        self._check_repositories(parsed)
        return [experiment for experiment in parsed if experiment is not None]

    def _report(self, path: str, sentence: str) -> None:
        self.problems.append(Problem(self.file, path, sentence))

    def _check_base(self, name: str, table: object) -> None:
        """Find mistakes in a base config even where no experiment uses it."""
        if not isinstance(table, dict):
            self._report(name, f"found {describe_value(table)}; allowed: a table of settings or [[experiments]]")
            return
        complete = {"corpus": next(iter(self.corpora or []), ""), **table}
        self._validate_training(complete, lambda key: f"{name}.{key}", is_base=True)

    def _check_duplicates(self, entries: list[Table]) -> None:
        first: dict[str, int] = {}
        for index, entry in enumerate(entries):
            name = str(entry.get("name", ""))
            if name.casefold() in first:
                earlier = first[name.casefold()]
                self._report(f"experiments[{index}].name", f'"{name}" is already the name of experiments[{earlier}]')
            elif name:
                first[name.casefold()] = index

    def _check_repositories(self, experiments: Sequence[ExperimentConfig | None]) -> None:
        """Find runs that would overwrite each other on the hub, or whose repository name the hub refuses."""
        owners: dict[str, str] = {}
        for index, experiment in enumerate(experiments):
            if experiment is None or experiment.push_to_hub is None:
                continue
            path = f"experiments[{index}].push_to_hub"
            for repository in filter(None, map(experiment.repository, experiment.seeds)):
                owner = owners.setdefault(repository, experiment.name)
                reason = _refused_by_hub(repository)
                if reason:
                    self._report(path, f'"{repository}" cannot be a repository of the hub: {reason}')
                elif owner != experiment.name:
                    remedy = "write {name} into it, which stands for the experiment's name"
                    self._report(path, f'"{repository}" is already used by the experiment "{owner}"; {remedy}')

    def _parse_entry(self, index: int, table: Table) -> ExperimentConfig | None:
        path = f"experiments[{index}]"
        entry = _validate(ExperimentEntry, table, lambda key: f"{path}.{key}", self.file, self.problems)
        if entry is None:  # go on with the valid ones, so that all problems are reported at once
            update, base_name = table.get("config_update"), table.get("config", "base_config")
            update = update if isinstance(update, dict) else {}
            entry = ExperimentEntry(name="unnamed", config=str(base_name), config_update=update)
        bases = {name: value for name, value in self.tables.items() if name != "experiments"}
        base = bases.get(entry.config)
        if not isinstance(base, dict):
            known = did_you_mean(entry.config, list(bases))
            self._report(f"{path}.config", f'found "{entry.config}"; no such table in this file; {known}')
            return None

        def locate(key: str) -> str:
            first = key.split(".")[0]
            return f"{path}.config_update.{key}" if first in entry.config_update else f"{entry.config}.{key}"

        merged = {**base, **entry.config_update}
        if not self._validate_training(merged, locate):
            return None
        return ExperimentConfig.model_validate({**merged, "name": entry.name, "model_type": entry.model_type})

    def _validate_training(self, table: Table, locate: Locate, is_base: bool = False) -> bool:
        """Report the problems of one set of training keys; in a base config, keys are checked one by one only."""
        before = len(self.problems)
        _validate(TrainingConfig, table, locate, self.file, self.problems, keys_together=not is_base)
        corpora = [("corpus", table.get("corpus"))]
        if isinstance(table.get("test_corpora"), list):
            corpora += [("test_corpora", name) for name in table["test_corpora"]]
        for key, name in corpora:
            if self.corpora and isinstance(name, str) and name not in self.corpora:
                self._report(locate(key), f'found "{name}"; no such corpus; {did_you_mean(name, self.corpora)}')
        return len(self.problems) == before


def _validate(
    model: type[SectionType],
    table: Table,
    locate: Locate,
    file: Path,
    problems: list[Problem],
    keys_together: bool = True,
) -> SectionType | None:
    """Validate one table; on failure add one problem per key and return None."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        messages = _joined(_sentences(model, table, error, keys_together))
        if keys_together and not any(item["type"] == "key_problems" for item in error.errors()):
            messages = {
                **_problems_between_keys(model, {k: v for k, v in table.items() if k not in messages}),
                **messages,
            }
        for key, sentence in messages.items():
            problems.append(Problem(file, locate(key), sentence))
        return None


def _problems_between_keys(model: type[Section], table: Table) -> dict[str, str]:
    """Check the keys that are valid by themselves against each other."""
    try:
        model.model_validate(table)
    except ValidationError as error:
        for item in error.errors():
            if item["type"] == "key_problems":
                return _joined((key, sentence) for key, sentence in item["ctx"]["problems"] if key in table)
    return {}


def _joined(sentences: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return all sentences about each key as one text, by key."""
    messages: dict[str, str] = {}
    for key, sentence in sentences:
        messages[key] = f"{messages[key]}; {sentence}" if key in messages else sentence
    return messages


def _sentences(
    model: type[Section], table: Table, error: ValidationError, keys_together: bool
) -> Iterable[tuple[str, str]]:
    messages = {str(item["loc"][0]): item["msg"] for item in error.errors() if item["type"] == REFUSED_PATH}
    yield from messages.items()
    for item in error.errors():
        if item["type"] == "key_problems":
            yield from item["ctx"]["problems"] if keys_together else ()
            continue
        key = str(item["loc"][0])
        if item["type"] == "extra_forbidden" and len(item["loc"]) > 1:  # a key of a table inside the table
            messages[key] = ""
            known = [*ClassGroups.model_fields]
            yield f"{key}.{item['loc'][-1]}", f"unknown key; {did_you_mean(str(item['loc'][-1]), known)}"
        elif key not in messages:
            messages[key] = ""
            yield key, _field_sentence(model, key, table)


def _field_sentence(model: type[Section], key: str, table: Table) -> str:
    field = model.model_fields.get(key)
    if field is None:
        return f"unknown key; {did_you_mean(key, list(model.model_fields))}"
    if key not in table:
        return f"missing; allowed: {describe_allowed(field)}"
    return _wrong_value(key, table[key], describe_allowed(field), field.annotation)


def _wrong_value(key: str, value: object, allowed: str, annotation: object) -> str:
    sentence = f"found {describe_value(value)}; allowed: {allowed}"
    choices = re.findall(r'"([^"]+)"', allowed)
    if isinstance(value, str) and choices:
        near = did_you_mean(value, choices)
        sentence += f"; {near}" if near.startswith("did") else ""
    return sentence
