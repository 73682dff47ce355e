"""The schema's history, run by `inkdigits.schema.migrate` with Alembic."""
