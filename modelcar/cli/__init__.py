"""The command line for models: its parser, its commands, and completion in shells."""
