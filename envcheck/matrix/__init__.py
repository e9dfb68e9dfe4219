"""The database: rules and tables, loading, three-valued matching, explaining, and the audit of the data."""
