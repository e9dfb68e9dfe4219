"""Report -> text, JSON, markdown, SARIF. No computing, no I/O."""
