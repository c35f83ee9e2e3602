"""State in SQLite: schema, migrations and queries. The queue lives here."""
