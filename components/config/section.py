"""What all sections of the settings have in common, in a stack's file and in others' programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from components.config.explain import explained
from modelcar.errors import InputError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass  # for type checkers only
else:
    ModelMetaclass = type(BaseModel)


class _Told(ModelMetaclass):
    """Lets a program that makes a section by itself be told in this project's words what is wrong with it."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            model: Any = cls
            raise InputError(list(explained(error, model, cls.__name__))) from None


class Section(BaseModel, metaclass=_Told):
    """One group of settings; unknown keys are refused.

    A stack's file has its keys in camelCase, and `components.config.loading` takes no others; a program that
    makes a section uses Python's names.

    Raises:
        modelcar.errors.InputError: a program made it of values that are wrong.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )
