"""Makes the shipped head CT package: simulate phantoms, train, evaluate on others, pack.

``python -m tools.head_ct.train``, then ``calibrate``, ``evaluate`` and ``build_package``: see
docs/models/head_ct.md.
"""
