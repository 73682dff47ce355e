"""The Kubernetes manifests are valid in three versions, and name what exists."""

import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from support.repository import REPOSITORY

from inkdigits.cli.main import main
from inkdigits.settings import VARIABLES

FOLDER = REPOSITORY / "deploy" / "kubernetes"
VERSIONS = ("1.33", "1.35", "1.37")
FILES = sorted(p for p in FOLDER.rglob("*.yaml") if p.name != "kustomization.yaml")
# KServe's kinds have no schema here, and a component holds patches.
WHOLE = [p for p in FILES if not {"kserve", "components"} & set(p.parts)]


def manifests(text):
    return list(yaml.safe_load_all(text))


def validate(found):
    for manifest in found:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.heavy
@pytest.mark.parametrize("path", WHOLE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_manifest_is_valid_in_three_versions_of_kubernetes(path):
    validate(manifests(path.read_text()))


@pytest.mark.heavy
@pytest.mark.parametrize("folder", ["overlays/one-node", "overlays/production", "bulk"])
def test_what_kustomize_renders_is_valid(folder, tmp_path):
    kubectl = shutil.which("kubectl") or pytest.skip("kubectl is not there")
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    chosen = tmp_path / "kubernetes" / folder / "kustomization.yaml"
    chosen.write_text(chosen.read_text().replace("# components:\n#  ", "components:\n "))
    command = [kubectl, "kustomize", str(chosen.parent)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    validate(manifests(text))
    assert ("initContainers" in text) == (folder == "overlays/production")


def containers(node):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in ("initContainers", "containers"):
            yield from value
        elif isinstance(value, dict | list):
            yield from containers(value)


def test_containers_have_limits_no_rights_and_settings_and_commands_that_exist():
    for one in [found for path in FILES for found in containers(manifests(path.read_text()))]:
        if "image" in one:  # a patch has only what it changes
            assert one["securityContext"]["readOnlyRootFilesystem"]
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= one["resources"].keys()
        for variable in one.get("env", []):
            if variable["name"].startswith("INKDIGITS_"):
                assert variable["name"] in VARIABLES
            secret = variable["name"].endswith(("TOKEN", "KEY", "PASSWORD", "DATABASE_URL"))
            assert not (secret and "value" in variable), variable
        program, *arguments = one.get("command", [None])
        if program == "inkdigits":
            command = main
            while hasattr(command, "commands"):
                command = command.commands[arguments.pop(0)]
            command.make_context("", [a.replace("$(SHARD)", "7") for a in arguments]).close()
