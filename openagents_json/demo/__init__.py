"""The main job on real input: ``python -m openagents_json.demo``.

Extract, transform, load over the source files of the running Python's own standard library: a batch with one job for
each package, jobs that combine their results, and a job that makes the report. Read `_jobs` first: it is the part
that uses the job manager; `_run` and `_batch` bring them to their end, also those that a killed process left behind in
a store, which `_places` makes. The rest is ordinary code: `_sources` (which files), `_analysis` (one file, by its
syntax tree), `_combine` (many packages), `_report` and `_plot` (what comes out), `_progress` (what is shown meanwhile).
"""
