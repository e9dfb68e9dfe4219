"""From a lock to a script, a run and a manifest; and what other people's setup scripts do."""
