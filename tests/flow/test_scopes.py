"""Where keys live: no two of different meaning share a place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.flow.scopes import FlowScope, namespace_of, namespaces_for, visible_namespaces
from kvstore.namespace import check_namespace, encode_namespace
from kvstore.patterns import compile_pattern, escape

SOME = ["a", "b", "flow", "entity", "project", "run", "session", "a/b", "*", "\t", "\n"]
ids = st.sampled_from(SOME) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
scopes = st.builds(FlowScope, flow=ids, session=ids, run=ids)
entities = st.none() | ids
names = st.sampled_from(["", "$flow.", "$session.", "$run."])


@given(
    st.tuples(scopes, names, entities),
    st.tuples(scopes, names, entities),
)
def test_places_are_the_same_only_for_the_same_entity_scope_and_id(
    one: tuple[FlowScope, str, str | None], other: tuple[FlowScope, str, str | None]
) -> None:
    def meaning(scope: FlowScope, name: str, entity: str | None) -> object:
        return entity, name, getattr(scope, name[1:-1]) if name else None

    places = [namespace_of(scope, f"{name}key", entity) for scope, name, entity in (one, other)]
    assert (places[0] == places[1]) == (meaning(*one) == meaning(*other))
    assert len({encode_namespace(place) for place in places}) == len(set(places))


@given(scopes, names, entities, ids)
def test_a_key_lives_where_its_own_pattern_looks(
    scope: FlowScope, name: str, entity: str | None, key: str
) -> None:
    written = name + key if name else f"k{key}"
    place = namespace_of(scope, written, entity)
    check_namespace(place)
    assert place[0] == "flow"
    assert place in visible_namespaces(scope, entity)
    assert place in namespaces_for(scope, compile_pattern(escape(written)), entity)
    assert place in namespaces_for(scope, compile_pattern("*"), entity)
