"""A model's weights: checked, packed as an OCI layout, and built into the image that KServe serves."""
