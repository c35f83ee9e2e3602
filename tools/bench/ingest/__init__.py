"""``edge-triage bench ingest``: how fast the node stores, beside others on the same machine.

Everything but ``messages``, ``loads``, ``rates`` and ``report`` starts processes or talks to them.
"""
