"""Code for the interpreter under test; never imported by envcheck itself."""
