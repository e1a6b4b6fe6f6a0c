"""The program's parts, in floors that use only what is below them; docs/architecture.md shows them."""
