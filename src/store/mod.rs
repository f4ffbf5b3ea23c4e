//! All SQL, the embedded server, and the journal on Postgres.
