"""State of a flow: counters, a session, a run and two users, from plain sync code.

    python -m kvstore.examples.flow_state [PATH_OR_URL]      (project.db unless you name another)

Run it twice: the second run goes on where the first one stopped.
"""

from __future__ import annotations

import sys

from kvstore import FlowScope, KeyValueStore


def node(key_value_store: KeyValueStore, user: str, run_id: str) -> None:
    """One step of the flow: it has the store and the user, and knows nothing else."""
    prefs = key_value_store.retrieve("preferences", entity_id=user)
    if prefs is None:
        prefs = {"theme": "dark" if user == "alice" else "light"}
        key_value_store.insert("preferences", prefs, entity_id=user)
    logins = key_value_store.increment("logins", entity_id=user)
    key_value_store.insert("$run.draft", f"written in {run_id}, gone with it")
    key_value_store.append("$session.seen", user)
    print(f"  {user} likes it {prefs['theme']}; login {logins}")


def main(target: str) -> None:
    """Run the flow once."""
    scope = FlowScope(flow="greeting", session="monday")
    with KeyValueStore(target, scope=scope) as key_value_store:
        number = key_value_store.increment("runs")
        print(f"run {number} on {target}")
        with key_value_store.run(run_id=f"run-{number}") as run:
            for user in ("alice", "bob"):
                node(run, user, f"run-{number}")
            print(f"  while it runs: {', '.join(run.list_keys())}")
        print(f"  when it is over: {', '.join(key_value_store.list_keys())}")
        print(f"  seen in this session: {', '.join(key_value_store.retrieve('$session.seen'))}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "project.db")
