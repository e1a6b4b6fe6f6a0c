"""Checks of settings, one file a concern; each names key, value, what is allowed and the fix."""
