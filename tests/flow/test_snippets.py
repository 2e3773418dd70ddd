"""The snippets that flow users know run as they stand, and go on in the next process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kvstore
from tests.running import python

ROOT = Path(kvstore.__file__).parents[1]

SNIPPETS = """
import json, sys
sys.path.insert(0, sys.argv[2])

from kvstore import KeyValueStore

keyValueStore = KeyValueStore(sys.argv[1])
input1 = "user123"
start = {name: keyValueStore.retrieve(name) for name in keyValueStore.list_keys()}

# Store a simple value
keyValueStore.insert("user_preference", "dark_mode")

# Store complex data
keyValueStore.insert("config", {
    "threshold": 0.8,
    "enabled": True,
    "tags": ["production", "v2"]
})

# Get a value
preference = keyValueStore.retrieve("user_preference")

# Check if value exists before using
config = keyValueStore.retrieve("config")
if config:
    threshold = config["threshold"]
else:
    threshold = 0.5

# Delete a single key, and with wildcard patterns
keyValueStore.insert("temp_cache", 1)
keyValueStore.insert("temp_1", 1)
keyValueStore.insert("cache_1", 1)
keyValueStore.remove("temp_cache")
keyValueStore.remove("temp_*")
keyValueStore.remove("cache_*")

# Store data for a specific user
user_id = input1
keyValueStore.insert("preferences", {
    "theme": "dark",
    "language": "en"
}, entity_id=user_id)

# Retrieve user-specific data
prefs = keyValueStore.retrieve("preferences", entity_id=user_id)

# Different users have isolated storage
scores = []
for user in ["alice", "bob"]:
    score = keyValueStore.retrieve("high_score", entity_id=user)
    if score:
        scores.append(f"{user}: {score}")
keyValueStore.insert("high_score", 10, entity_id="bob")

# List keys for a specific entity
user_keys = keyValueStore.list_keys(entity_id=user_id)

# Delete all data for an entity
for key in keyValueStore.list_keys(entity_id=user_id):
    keyValueStore.remove(key, entity_id=user_id)
left = keyValueStore.list_keys(entity_id=user_id)

# Append to list
queue = keyValueStore.retrieve("task_queue") or []
queue.append({"task": "process_image", "id": 123})
keyValueStore.insert("task_queue", queue)
keyValueStore.insert("task_queue", queue + queue)

# Pop from list
queue = keyValueStore.retrieve("task_queue") or []
if queue:
    task = queue.pop(0)  # Get first task
    keyValueStore.insert("task_queue", queue)

# Increment a counter
current = keyValueStore.retrieve("visit_count") or 0
keyValueStore.insert("visit_count", current + 1)

# Track multiple counters
counters = keyValueStore.retrieve("counters") or {}
counters["page_views"] = counters.get("page_views", 0) + 1
counters["api_calls"] = counters.get("api_calls", 0) + 1
keyValueStore.insert("counters", counters)

# Per-user counters
user_id = input1
count_key = f"login_count"
count = keyValueStore.retrieve(count_key, entity_id="carol") or 0
keyValueStore.insert(count_key, count + 1, entity_id="carol")

print(json.dumps({
    "start": start, "preference": preference, "threshold": threshold, "prefs": prefs,
    "scores": scores, "user_keys": user_keys, "left": left, "task": task,
    "visits": keyValueStore.retrieve("visit_count"),
    "counters": keyValueStore.retrieve("counters"),
    "logins": keyValueStore.retrieve("login_count", entity_id="carol"),
    "keys": keyValueStore.list_keys(),
}))
"""


def run(path: Path) -> Any:
    done = python("-W", "error", "-c", SNIPPETS, path, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_snippets_run_and_go_on_in_the_next_process(tmp_path: Path) -> None:
    task = {"task": "process_image", "id": 123}
    first = run(tmp_path / "project.db")
    assert first == {
        "start": {},
        "preference": "dark_mode",
        "threshold": 0.8,
        "prefs": {"theme": "dark", "language": "en"},
        "scores": [],
        "user_keys": ["preferences"],
        "left": [],
        "task": task,
        "visits": 1,
        "counters": {"page_views": 1, "api_calls": 1},
        "logins": 1,
        "keys": ["config", "counters", "task_queue", "user_preference", "visit_count"],
    }
    second = run(tmp_path / "project.db")
    assert second["start"]["task_queue"] == [task]
    assert second["start"]["visit_count"] == 1
    assert second["scores"] == ["bob: 10"]
    assert second["visits"] == 2
    assert second["counters"] == {"page_views": 2, "api_calls": 2}
    assert second["logins"] == 2
