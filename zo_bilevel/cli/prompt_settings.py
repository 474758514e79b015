"""The settings file of `zo-bilevel prompt FILE.toml`: tables, models and metrics by name."""

from __future__ import annotations

import inspect
import os
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zo_bilevel.support.errors import InputError, unknown_name_message

if TYPE_CHECKING:
    from zo_bilevel.adapters.prompts.chat import Chat
    from zo_bilevel.tasks.prompt_data import Texts

TEXT, WHOLE, NUMBER, LIST, TABLE = "a text", "a whole number", "a number", "a list", "a table"
KINDS: dict[str, tuple[type, ...]] = {
    TEXT: (str,),
    WHOLE: (int,),
    NUMBER: (int, float),
    LIST: (list,),
    TABLE: (dict,),
}
PARTS: dict[str, dict[str, str]] = {
    "": {
        **{"metric": TEXT, "examples": WHOLE, "validation": NUMBER, "folds": WHOLE},
        **{"max_cost": NUMBER, "max_answers": WHOLE, "length_price": NUMBER},
        "data": f"{TEXT} or {LIST}",
    },
    "model": {},  # whatever ChatModel, LiteLLM or LocalChat takes
    "template": {"user": TEXT, "system": TEXT, "num_shown": WHOLE, "system_role": TEXT},
    "slots": {},
    "proposer": {"about": TEXT, "model": TABLE},
    "judge": {"criteria": TEXT, "model": TABLE},
}
CLASSES = "classes"
JUDGE = "judge"
WORDING_TOKENS = 300


def read_settings(path: str) -> dict[str, Any]:
    """Read a TOML file, and refuse what it should not hold.

    Raises:
        InputError: If it cannot be read, or names what there is not.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    settings = {name: value for name, value in found.items() if not isinstance(value, dict)}
    for part, content in [("", settings), *((k, v) for k, v in found.items() if k not in settings)]:
        if part not in PARTS:
            raise InputError(f"{path}: {unknown_name_message('table', part, filter(None, PARTS))}")
        where = f"{path} [{part}]" if part else path
        for name, value in content.items() if PARTS[part] else ():
            if name not in PARTS[part]:
                raise InputError(f"{where}: {unknown_name_message('setting', name, PARTS[part])}")
            _check_kind(f"{where}: {name}", value, PARTS[part][name])
    for name in ("data", "model", "template"):
        if name not in found:
            raise InputError(f"{path} must have {name!r}")
    return found


def _check_kind(name: str, value: object, rule: str) -> None:
    kinds = [kind for word in rule.split(" or ") for kind in KINDS[word]]
    if isinstance(value, bool) or not isinstance(value, tuple(kinds)):
        raise InputError(f"{name} must be {rule}, got {value!r}")


def texts_of(path: str, data: Any, columns: Mapping[str, str]) -> Texts:  # noqa: ANN401 - as there
    """The examples of a file of settings: of the data file beside it, or its own pairs.

    Args:
        path: The file of settings.
        data: Name of the data file, or the pairs.
        columns: Names of its columns, as `read_texts` takes them.

    Raises:
        InputError: If they cannot be read.
    """
    from zo_bilevel.adapters.prompts.chat_checks import conflict_of
    from zo_bilevel.tasks.prompt_data import read_texts

    is_file = isinstance(data, str)
    texts = read_texts(Path(path).parent / data, **columns) if is_file else _pairs(data)
    rows = texts.first_rows()
    if len(rows) < len(texts):  # else a held-out text may be one that was tuned on
        conflict = conflict_of(texts.texts, texts.labels)
        warnings.warn(
            f"{len(texts) - len(rows)} of {len(texts)} rows repeat the text of an earlier one "
            f"and are left out{'; ' * bool(conflict)}{conflict}",
            stacklevel=2,
        )
    return texts.take(rows)


def _pairs(data: Any) -> Texts:  # noqa: ANN401 - as the file has it
    from zo_bilevel.tasks.prompt_data import from_rows

    for place, row in enumerate(data if isinstance(data, list) else [data]):
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(t, str) for t in row)):
            raise InputError(f"data must be a file or pairs [text, label], row {place} is {row!r}")
    return from_rows([(text, label) for text, label in data])


def chat_of(settings: Mapping[str, Any]) -> Chat:
    """The model that a table describes: `local`, `litellm`, or `url` and `name`.

    Raises:
        InputError: If it describes none, or has a setting that there is not.
    """
    from zo_bilevel.adapters import ChatModel, LiteLLM, LocalChat

    given = dict(settings)
    kind = next((name for name in ("local", "litellm", "url") if name in given), None)
    if kind is None or (kind == "url" and not given.get("name")):
        raise InputError("[model] must have local, litellm, or url and name")
    price = given.pop("price", None)
    if price is not None and not (isinstance(price, list) and len(price) == 2):
        raise InputError(f"[model] price must be two numbers, read and written, got {price!r}")
    first = given.pop(kind)
    name = {"url": lambda: given.pop("name"), "litellm": lambda: first}.get(
        kind, lambda: Path(first).name
    )()
    options = given if price is None else {**given, "prices": {name: tuple(price)}}
    if options.get("key_variable") == "":
        options["key_variable"] = None
    _check_model(kind, given, options)
    try:
        if kind == "url":
            return ChatModel(first, name, **options)
        return LiteLLM(first, **options) if kind == "litellm" else LocalChat(first, **options)
    except TypeError as error:
        raise InputError(f"[model]: {str(error).partition(') ')[2] or error}") from error


def _check_model(kind: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Say in words of the file what the model would say in Python's."""
    from zo_bilevel.adapters import ChatModel, LocalChat

    taken = inspect.signature(LocalChat if kind == "local" else ChatModel).parameters.values()
    known = {"price", "url", *(p.name for p in taken if p.kind is p.KEYWORD_ONLY)}
    for setting in given:
        if setting not in known:
            raise InputError(f"[model]: {unknown_name_message('setting', setting, known)}")
    variable = options.get("key_variable", "OPENAI_API_KEY")
    if kind == "url" and isinstance(variable, str) and not os.environ.get(variable, "").strip():
        raise InputError(
            f"[model]: there is no key: set the environment variable {variable}, or "
            'key_variable = "" for a server that needs none'
        )


def writer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the same model where it writes wordings: room for one, and not the likeliest alone."""
    most = max(settings.get("max_tokens", 0), WORDING_TOKENS)
    return {"temperature": 0.7, **settings, "max_tokens": most}


def metric_of(settings: Mapping[str, Any], chat: Chat) -> Any:  # noqa: ANN401 - or None
    """The metric of a file: by name, a regular expression between slashes, or a judge.

    Args:
        settings: Of the file.
        chat: Judges, where `[judge]` has no model of its own.

    Returns:
        The metric; `None` for classes.

    Raises:
        InputError: If there is no such metric.
    """
    from zo_bilevel.adapters.prompts import metrics
    from zo_bilevel.adapters.prompts.judge import Judge

    name = settings.get("metric", CLASSES)
    known: dict[str, Any] = {
        CLASSES: None,
        "exact": metrics.exact_match,
        "number": metrics.NumberMatch(),
        "json": metrics.json_match,
        "rouge": metrics.Rouge(),
        "bleu": metrics.Bleu(),
        JUDGE: None,
    }
    if (JUDGE in settings) != (name == JUDGE):
        raise InputError(f'metric = "{JUDGE}" and the table [{JUDGE}] need each other')
    if name == JUDGE:
        given = dict(settings[JUDGE])
        own = given.pop("model", None)
        return Judge(chat_of(own) if own else chat, **given)
    if isinstance(name, str) and len(name) > 2 and name[0] == name[-1] == "/":
        return metrics.PatternMatch(name[1:-1])
    if name not in known:
        raise InputError(unknown_name_message("metric", str(name), known))
    return known[name]
