"""Phantom studies: synthetic heads, their DICOM headers and the variants that a gate must refuse.

Everything here is made from a seed; no pixel and no identity comes from a patient.
"""
