"""A JSON schema as a grammar: a subset of the keywords, and one way to put white space.

    json_schema.to_grammar('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')

Taken: type (also a list of types), properties, required, items, minItems, maxItems, minLength, maxLength, enum,
const, anyOf, oneOf (read as anyOf), $ref to "#/$defs/..." or "#/definitions/...", and true. Properties come in the
order of the schema, no others are allowed. Read and left aside: title, description, default, examples, $schema, $id,
$comment, additionalProperties. Any other keyword is refused, as leaving it out would let wrong values through. Values
are written as Python's json.dumps does: ", " and ": ", and no other white space.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.text.grammar import quoted

_ASIDE = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "additionalProperties"}
_KNOWN = {
    "object": {"properties", "required"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
}
_DEFINITIONS = ("$defs", "definitions")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
LEXICAL = {
    "char": r'[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [+-]? [0-9]{1,3})?',
    "anything": 'anyobject | anyarray | "\\"" char* "\\"" | number | "true" | "false" | "null"',
    "anyobject": '"{" (anymember (", " anymember)*)? "}"',
    "anymember": '"\\"" char* "\\"" ": " anything',
    "anyarray": '"[" (anything (", " anything)*)? "]"',
}


def to_grammar(schema: str) -> str:
    """The grammar of the JSON texts that fit `schema`. UserError: not JSON, or more than the subset."""
    limits.check_text(schema, name="The schema", characters=limits.GRAMMAR_CHARACTERS)
    try:
        tree = json.loads(schema)
    except RecursionError:
        raise UserError("The schema is nested too deeply; please name its parts in $defs.") from None
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"The schema is no JSON; please check line {line}.") from None
    return _Writer(tree).grammar()


class _Writer:
    def __init__(self, tree: Any):
        self.tree = tree
        self.rules: dict[str, str] = {}
        self.waiting: list[tuple[str, Any]] = []
        self.references: dict[str, str] = {}

    def grammar(self) -> str:
        self.waiting = [("root", self.tree)]
        while self.waiting:
            name, schema = self.waiting.pop(0)
            self.rules[name] = ""  # its place is before the rules of its parts
            self.rules[name] = self.value(schema, name, 0)
            if len(self.rules) > limits.GRAMMAR_CHARACTERS // 20:
                raise UserError("The schema has too many parts; please use fewer properties.")
        used = _lexical(" ".join(self.rules.values()))
        return "".join(f"{name} ::= {body}\n" for name, body in {**self.rules, **used}.items())

    def value(self, schema: Any, name: str, depth: int) -> str:
        """The right side of a rule for one schema. name: of the rule, for the names of further rules."""
        if depth > limits.GRAMMAR_DEPTH // 2:
            raise UserError("The schema is nested too deeply; please name its parts in $defs.")
        if schema is True or schema == {}:
            return "anything"
        if not isinstance(schema, dict):
            raise UserError("A part of the schema is neither an object nor true; please write it as an object.")
        given = set(schema) - _ASIDE - set(_DEFINITIONS)
        if "$ref" in given:
            return self.reference(schema["$ref"])
        if "const" in given:
            return _literal(schema["const"])
        if "enum" in given:
            if not isinstance(schema["enum"], list) or not schema["enum"]:
                raise UserError("An enum of the schema is empty; please list its values.")
            return _either(_literal(value) for value in schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in given:
                if given != {key} or not isinstance(schema[key], list) or not schema[key]:
                    raise UserError(f"{key} stands alone here, with a list of schemas; please move what is beside it.")
                return _either(self.value(part, f"{name}-{k}", depth + 1) for k, part in enumerate(schema[key]))
        types = schema.get("type", "object" if "properties" in given else None)
        types = types if isinstance(types, list) else [types]
        known = {"type"}.union(*(_KNOWN.get(str(kind), set()) for kind in types))
        for key in given - known:
            raise UserError(
                f"The keyword {quoted(str(key))} of the schema is not in the subset used here; see the notes."
            )
        for kind in types:
            if kind not in _TYPES:
                raise UserError(f"A type of the schema is none of {', '.join(_TYPES)}; please name one.")
        return _either(self.typed(kind, schema, name, depth) for kind in types)

    def rule(self, schema: Any, name: str, depth: int) -> str:
        """A rule of its own for what is written more than once: else nested schemas would double at each level."""
        self.rules[name] = self.value(schema, name, depth + 1)
        return name

    def reference(self, target: Any) -> str:
        for key in _DEFINITIONS:
            start = f"#/{key}/"
            if isinstance(target, str) and target.startswith(start):
                found = self.tree.get(key, {}) if isinstance(self.tree, dict) else {}
                if isinstance(found, dict) and (inner := target.removeprefix(start)) in found:
                    if target not in self.references:
                        self.references[target] = f"def-{len(self.references) + 1}"
                        self.waiting.append((self.references[target], found[inner]))
                    return self.references[target]
        raise UserError('A $ref of the schema leads nowhere; please write it as "#/$defs/name".')

    def typed(self, kind: str, schema: dict[str, Any], name: str, depth: int) -> str:
        if kind == "string":
            return f'"\\"" char{_times(schema, "minLength", "maxLength")} "\\""'
        if kind == "array":
            least, most = _bounds(schema, "minItems", "maxItems")
            item = self.rule(schema.get("items", True), f"{name}-item", depth)
            if most == 0:
                return '"[]"'
            more = f'(", " {item}){_repeat(max(0, least - 1), None if most is None else most - 1)}'
            return f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"'
        if kind == "object":
            return self.object(schema, name, depth)
        return {"boolean": '"true" | "false"', "null": '"null"'}.get(kind, kind)

    def object(self, schema: dict[str, Any], name: str, depth: int) -> str:
        """Two rules per optional place: what may follow when nothing was written yet, and when something was."""
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise UserError("properties of the schema is an object and required a list of names; please check them.")
        if unknown := [key for key in required if not isinstance(key, str) or key not in properties]:
            raise UserError(
                f"required names {quoted(str(unknown[0]))}, which is none of the properties; please add it."
            )
        members = []
        for k, (key, part) in enumerate(properties.items()):
            value = self.rule(part, f"{name}-{k}", depth)
            members.append((f"{_literal_text(json.dumps(key) + ': ')} {value}", key))
        if all(key in required for _, key in members):
            return " ".join(['"{"', ' ", " '.join(text for text, _ in members), '"}"'])
        count = len(members)
        for k in range(count):
            text, key = members[k]
            for begun in (False, True) if k else (False,):
                taken = (f'", " {text}' if begun else text) + (f" {name}-b{k + 1}" if k + 1 < count else "")
                skipped = f"{name}-{'b' if begun else 'a'}{k + 1}" if k + 1 < count else '""'
                self.rules[f"{name}-{'b' if begun else 'a'}{k}"] = taken if key in required else f"{taken} | {skipped}"
        return f'"{{" {name}-a0 "}}"'


def _lexical(text: str) -> dict[str, str]:
    """The rules of LEXICAL whose names stand in `text`, and those that they need."""
    found: dict[str, str] = {}
    todo = [text]
    while todo:
        for name in re.findall(r"[a-z]+", todo.pop()):
            if name in LEXICAL and name not in found:
                found[name] = LEXICAL[name]
                todo.append(found[name])
    return found


def _either(parts: Any) -> str:
    parts = list(parts)
    return parts[0] if len(parts) == 1 else "(" + ") | (".join(parts) + ")"


def _literal(value: Any) -> str:
    return _literal_text(json.dumps(value, ensure_ascii=True))


def _literal_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bounds(schema: dict[str, Any], low: str, high: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for value in (least, 0 if most is None else most):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limits.GRAMMAR_REPEATS:
            raise UserError(f"{low} and {high} of the schema are whole numbers up to {limits.GRAMMAR_REPEATS:,}.")
    if most is not None and most < least:
        raise UserError(f"{high} of the schema is smaller than {low}; please swap them.")
    return least, most


def _times(schema: dict[str, Any], low: str, high: str) -> str:
    return _repeat(*_bounds(schema, low, high))


def _repeat(least: int, most: int | None) -> str:
    if most is None:
        return "*" if least == 0 else "+" if least == 1 else f"{{{least},}}"
    return f"{{{least},{most}}}"
