"""modelcar:image by the real CLI: an image of others beside a locked model, in one stack."""

from __future__ import annotations

import jsonschema

from components.stack.output_schema import schema
from tests import made_images as made
from tests.engine.conftest import Project


def test_an_image_that_is_there_beside_a_locked_model(project: Project) -> None:
    registry = str(project.platform.settings["registry"])
    base = made.base_of(project.platform.server_image)
    image = made.image([base, made.folder_layer(project.weights)])
    reference = image.push(made.elsewhere(registry, project.namespace))
    locked = {"name": "built", "model": project.config["model"]}
    there = {"name": "there", "image": reference}
    project.configure(model=None, serviceName=None, models=[locked, there])

    first = [str(step["urn"]).split("::")[2].split("$")[-1] for step in project.preview()]
    assert first.count("docker-build:index:Image") == 1, "of the locked model alone"
    assert first.count("modelcar:kserve:ExistingImage") == 1
    outputs = project.up()
    jsonschema.validate(outputs, schema())
    told = outputs["models"]["there"]
    assert (told["storageUri"], told["built"]) == (f"oci://{reference}", False)
    assert outputs["models"]["built"]["built"] is True
    assert project.preview() == []

    # Nobody answers for the registry: what the last run told stands in for it.
    project.variables |= {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    assert project.preview() == []
    assert f"{reference}: cannot be reached" in project.pulumi("preview").stdout
    failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert failed.returncode
    assert "modelcar:models[1].image: " in failed.stdout + failed.stderr
    project.variables.clear()

    project.configure(models=[locked])
    assert "removedModels" not in project.up(), "what this stack did not push is not its to delete"
