"""The folder that `wirespeed run` puts in front of PYTHONPATH, for Python to find its `sitecustomize`.

Nobody imports it as a package. Its modules are imported by Python's `site`, by their bare
names, and import nothing of wirespeed before the program imports aiohttp.
"""
