"""Mutations are made where mistakes can be, and survivors have reasons that still apply."""

import sys
from types import ModuleType

import pytest

from tests.mutations import applied, lua_source
from tests.mutations.catalogue import ROOT
from tests.mutations.money_path import ROOMS
from tests.mutations.mutation import mutation_of
from tests.mutations.survivors import accepted

SCRIPT = """\
local left = tonumber(redis.call('GET', KEYS[1]) or '0') -- a < b
if left < tonumber(ARGV[1]) and ARGV[2] == '1' then
  redis.call('SET', KEYS[1],
    'a + b')
end
if now < tonumber(ARGV[1]) then
  left = 0
end
return left
"""
MODULE = """\
LIMIT = 5

def decorated(function):
    return function

@decorated
def admits(amount):
    return amount <= LIMIT
"""


def test_every_kind_of_mistake_is_made_in_a_script(tmp_path):
    (tmp_path / "one.lua").write_text(SCRIPT)
    made = {(each.before, each.after) for each in lua_source.mutations(tmp_path, "one.lua")}
    condition = "if left < tonumber(ARGV[1]) and ARGV[2] == '1' then"
    assert {
        (condition, condition.replace("<", "<=")),
        (condition, condition.replace("<", ">=")),
        (condition, condition.replace("<", "+ 1 <")),
        (condition, condition.replace("and", "or")),
        (condition, condition.replace("==", "~=")),
        (condition, "if not (left < tonumber(ARGV[1]) and ARGV[2] == '1') then"),
        ("redis.call('SET', KEYS[1], 'a + b')", ""),
    } <= made
    late = "if now < tonumber(ARGV[1]) then"
    assert (late, late.replace("<", ">=")) in made
    assert (late, late.replace("<", "<=")) not in made, "nobody can call in a chosen millisecond"
    changed = {before for before, _ in made}
    assert not any(before == "'a + b')" for before in changed), "text is not code"
    assert not any("a <= b" in after for _, after in made), "comments are not code"


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "billing" / "scratch.py"
    path.parent.mkdir()
    path.write_text(MODULE)
    module = ModuleType("billing.scratch")
    exec(compile(MODULE, str(path), "exec"), vars(module))
    sys.modules["billing.scratch"] = module
    yield module
    del sys.modules["billing.scratch"]


def test_a_mutation_changes_functions_that_others_imported(module, tmp_path):
    admits = module.admits
    assert admits(5)
    mutation = mutation_of("billing/scratch.py", "", MODULE, MODULE.replace("<=", "<"))
    applied.apply(mutation, tmp_path, applied.Objects())
    assert not admits(5)
    assert admits(3)


def test_every_module_of_the_money_path_belongs_to_one_room():
    files = [file for room in ROOMS for file in room.files(ROOT)]
    assert len(files) == len(set(files))
    folders = ("billing/decisions", "billing/allowances", "billing/ingestion", "quota/published")
    folders += ("gateway/money", "gateway/metering", "gateway/lua", "quota/published/lua")
    there = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).iterdir()
        if path.suffix in (".py", ".lua") and path.name != "__init__.py"
    }
    assert there <= set(files)
    for room in ROOMS:
        for test in room.tests:
            assert (ROOT / test).exists(), test


def test_every_survivor_has_a_reason_and_its_line():
    for survivor in accepted():
        assert len(survivor.reason) > 20, survivor
        code = " ".join((ROOT / survivor.file).read_text().split())
        assert survivor.before in code, survivor
