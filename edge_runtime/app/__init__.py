"""The composition root: settings in, services out. Nothing reads settings after this package.

One module for each process of DESIGN.md section 4, so that none loads the libraries of another;
``device`` supervises them.
"""
