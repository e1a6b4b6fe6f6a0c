"""What a stack says: typed settings, one file a section; `checks` has their checks, `loading` reads all."""
