"""The schema's history, run by `inkdigits.log.schema.migrate` with Alembic."""
