"""Deep checks: nothing taken on trust. They read the installed files themselves, and run only when they are asked for."""
