"""The DeepSpeed configuration: document with places, key table, findings, `auto` resolution, corrections."""
