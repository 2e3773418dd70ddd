"""State for flows: `KeyValueStore` for sync code, `AsyncKeyValueStore` awaited, and the flow node.

What a user inserts is an item of the store underneath, in one of these namespaces, under the key
as it was written. The capitals stand for ids.

    ("flow", "project")                              "config"
    ("flow", "project", "flow", FLOW)                "$flow.config"
    ("flow", "project", "session", SESSION)          "$session.cart"
    ("flow", "entity", ENTITY)                       "config" of an entity
    ("flow", "entity", ENTITY, "flow", FLOW)         "$flow.config" of an entity
    ("flow", "entity", ENTITY, "session", SESSION)   "$session.cart" of an entity
    ("flow", "run", RUN, "project")                  "$run.draft"
    ("flow", "run", RUN, "entity", ENTITY)           "$run.draft" of an entity

So all of the facade's keys lie below `("flow",)`, apart from what else the store holds; all of an
entity's but those of a run lie below one namespace, and so does all of a run.
"""

from kvstore.flow.facade import AsyncKeyValueStore, KeyValueStore
from kvstore.flow.knowledge import KnowledgeDB
from kvstore.flow.node import KeyValueStoreNode
from kvstore.flow.scopes import FlowScope
from kvstore.flow.secrets import Secret

__all__ = [
    "AsyncKeyValueStore",
    "FlowScope",
    "KeyValueStore",
    "KeyValueStoreNode",
    "KnowledgeDB",
    "Secret",
]
