"""Writes TOML; the standard library only reads it. Tables keep the order in which they are given."""

import json
import re

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(document: dict) -> str:
    """Scalars, arrays, tables and arrays of tables. Dictionaries inside of an array of scalars become inline tables."""
    lines: list[str] = []
    _table(document, [], lines)
    return "\n".join(lines).strip() + "\n"


def _table(table: dict, path: list[str], lines: list[str]) -> None:
    nested = {key: value for key, value in table.items() if _is_table(value)}
    for key, value in table.items():
        if key not in nested:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in nested.items():
        inner = [*path, _key(key)]
        tables, header = (value, "[[{}]]") if isinstance(value, list) else ([value], "[{}]")
        for one in tables:
            lines += ["", header.format(".".join(inner))]
            _table(one, inner, lines)


def _is_table(value: object) -> bool:
    """Tensor descriptions are short: they read better on one line than as tables of their own."""
    if isinstance(value, dict):
        return set(value) != {"type", "shape"}
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _string(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            return _string(value)
        case list() | tuple():
            return "[" + ", ".join(_value(one) for one in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    raise TypeError(f"{type(value).__name__} has no place in model.toml")


def _string(text: str) -> str:
    # JSON's escapes are a subset of TOML's, except for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
