"""Which `pulumi config` command changes a setting of a stack, or of one of its models."""

from __future__ import annotations

import pytest

from local.setting import change
from modelcar.errors import InputError

LISTED = {"models": [{"name": "chat"}, {"name": "code"}]}


def test_a_stack_with_one_model_has_its_settings_at_the_top() -> None:
    assert change({}, "idle", ["true"], None) == ["set", "modelcar:idle", "true"]
    assert change({"serviceName": "chat"}, "idle", [], "chat") == ["rm", "modelcar:idle"]
    with pytest.raises(InputError, match="the stack has one model"):
        change({"serviceName": "chat"}, "idle", [], "code")


def test_a_model_of_several_has_its_own() -> None:
    expected = ["set", "--path", "modelcar:models[1].rollbackTo", "sha256:1"]
    assert change(LISTED, "rollbackTo", ["sha256:1"], "code", of_one=True) == expected
    assert change(LISTED, "idle", ["true"], None) == ["set", "modelcar:idle", "true"], "all of them"


def test_which_model_has_to_be_said_where_it_is_of_one() -> None:
    with pytest.raises(InputError, match=r"several models(?s:.*)chat, code(?s:.*)--model chat"):
        change(LISTED, "rollbackTo", [], None, of_one=True)
    with pytest.raises(InputError, match="poetry: the stack has no such model"):
        change(LISTED, "idle", [], "poetry")
