"""What importing a package would do, found from its source text: nothing is imported, and no code of it runs."""
