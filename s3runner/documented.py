"""JSON Schemas of the models, each key with the sentences that stand below it in the source.

They stand apart from the models because reading source takes longer than reading a job file:
only who asks for a schema pays for it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel


def documented_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON Schema in which every key says what it is."""
    schema = model.model_json_schema()
    definitions: dict[str, Any] = {model.__name__: schema, **schema.get("$defs", {})}
    for found in models_in(model):
        properties = definitions[found.__name__]["properties"]
        for name, text in sentences_of(found).items():
            properties[name]["description"] = text
    return schema


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a type is made of, each before those of its own fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for argument in get_args(annotation):
        yield from models_in(argument)


def sentences_of(model: type[BaseModel]) -> dict[str, str]:
    """Return what the string below each field of a model says, its parents' fields included."""
    parents = (base for base in model.__mro__[:0:-1] if base is not BaseModel)
    inherited = [_own_sentences(base) for base in parents if issubclass(base, BaseModel)]
    return {k: text for told in (*inherited, _own_sentences(model)) for k, text in told.items()}


def _own_sentences(model: type[BaseModel]) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(node, ast.ClassDef)  # noqa: S101  # it is a class's source
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
