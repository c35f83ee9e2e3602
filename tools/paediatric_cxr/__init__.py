"""Makes the shipped paediatric chest radiograph package from a public data set.

``python -m tools.paediatric_cxr.train``, then ``calibrate``, ``evaluate``, ``draw`` and
``build_package``: see docs/models/paediatric_cxr.md. The data is an argument of each of
them, is never copied, and nothing that is cut from it is written anywhere; ``wrap`` makes DICOM
objects of it in a folder of the caller's.
"""
