"""How Alembic runs the revisions: on the connection that `inkdigits.log.schema.migrate` hands in.

That connection is inside a transaction that holds the migrations' lock, so a process killed
half-way leaves the schema as it was.
"""

from alembic import context

from inkdigits.log.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
