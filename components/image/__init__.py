"""The modelcar image: built from a lock, there already, or a former one."""
