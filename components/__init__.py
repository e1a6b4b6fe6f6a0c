"""The program's parts: typed settings and the components that provision one model."""
