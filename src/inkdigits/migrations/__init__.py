"""The schema's history, run by `inkdigits.database.migrate` with Alembic."""
