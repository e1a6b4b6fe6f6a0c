"""What a builder has to be told so that the image comes out as it was predicted, whichever tool tells it."""

from __future__ import annotations

from modelcar.manifest import Image


def export_options(image: Image | None, *, insecure: bool = False) -> str:
    """Return the options of BuildKit's image exporter (`--output` of buildx), without the name.

    It pushes, does not compress what does not compress, and writes the annotations, which it would not take
    over from the layout by itself.

    Args:
        image: as planned; None where it is not known yet.
        insecure: push over plain HTTP.
    """
    options = ["type=image", "push=true", "compression=uncompressed", "oci-mediatypes=true"]
    options += ["registry.insecure=true"] if insecure else []
    annotations = image.annotations if image else {}
    options += [_csv(f"annotation.{name}={value}") for name, value in annotations.items()]
    return ",".join(options)


def image_tag(digest: str) -> str:
    """Return a tag that names the image by its content, so that no tag ever moves to another image."""
    return digest.removeprefix("sha256:")[:16]


def _csv(field: str) -> str:
    """Quote a field as BuildKit's options want it (CSV, RFC 4180)."""
    doubled = field.replace('"', '""')
    return f'"{doubled}"' if any(character in field for character in ',"') else field
