"""The names of services: whoever has written a rule for one finds it again."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.monitoring.service_names import find_collisions, service_name

VECTORS = {  # the public contract: no change of the code may change one of them
    "AIRFLOW": "FlowAuth_Token_AIRFLOW",
    "etl main": "FlowAuth_Token_etl main",
    "team/etl:prod@site+1.2-a_b": "FlowAuth_Token_team/etl:prod@site+1.2-a_b",
    "Düngemittel 東京": "FlowAuth_Token_Düngemittel 東京",
    "a|b": "FlowAuth_Token_a_b_0eab8a0a",
    'say "hi"': "FlowAuth_Token_say _hi__f65be999",
    "two  blanks": "FlowAuth_Token_two blanks_b9de1d8b",
    " around ": "FlowAuth_Token_around_a685e588",
    "x\n0 forged - OK": "FlowAuth_Token_x_0 forged - OK_653018b9",
    "back\\slash": "FlowAuth_Token_back_slash_1498e0b5",
    "": "FlowAuth_Token__e3b0c442",
    "half \ud800": "FlowAuth_Token_half __711a43f0",
    "n" * 185: f"FlowAuth_Token_{'n' * 185}",
    "n" * 186: f"FlowAuth_Token_{'n' * 176}_b5090230",
    "京" * 62: f"FlowAuth_Token_{'京' * 58}_d45657b4",
    f"{'n' * 175}  {'|' * 20}": f"FlowAuth_Token_{'n' * 175}_a64a0747",
}


@pytest.mark.parametrize(("name", "service"), VECTORS.items())
def test_a_name_has_the_service_that_it_always_had(name, service):
    assert service_name(name) == service


@given(st.text() | st.text(min_size=60, max_size=260))
def test_any_name_makes_one_field_of_a_line(name):
    """No quote, backslash, bar, line break or double blank, 200 bytes; a change is marked."""
    service = service_name(name)
    assert service.isprintable()
    assert len(service.encode()) <= 200
    assert not re.search(r'["\\|\n\r]|  ', service)
    if service != f"FlowAuth_Token_{name}":
        assert service.endswith("_" + hashlib.sha256(name.encode()).hexdigest()[:8])


@given(st.lists(st.text(alphabet='a|_ "\\\n', max_size=6), unique=True))
def test_names_that_look_alike_once_changed_are_kept_apart(names):
    """Whatever of them is turned to the same sign or left out."""
    assert len({service_name(name) for name in names}) == len(names)
    assert find_collisions(names) == {}


def test_a_name_that_was_chosen_to_look_like_another_one_is_found():
    """Unchanged names stay as they are, so this cannot be prevented."""
    chosen = service_name("a|b").removeprefix("FlowAuth_Token_")
    assert find_collisions(["a|b", chosen, "c"]) == {service_name("a|b"): sorted([chosen, "a|b"])}
